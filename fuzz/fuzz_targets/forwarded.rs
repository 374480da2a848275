#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| keyrink_fuzz::forwarded::run(input));
