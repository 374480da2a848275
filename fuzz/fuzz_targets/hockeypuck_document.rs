#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| keyrink_fuzz::hockeypuck_document::run(input));
