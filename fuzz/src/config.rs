//! The configuration file: one that is right is the same after it was shown and read again.

use keyrink::config::{Config, ConfigError};

/// Takes the text of a file.
pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    // Values may come from files, which are not part of the input.
    if text.contains("file") {
        return;
    }
    match Config::parse(text, None) {
        Ok(config) => assert_eq!(
            Config::parse(&config.show(), None).as_ref(),
            Ok(&config),
            "{}",
            config.show()
        ),
        Err(ConfigError::Problems(problems)) => assert!(!problems.is_empty()),
        Err(error) => panic!("nothing was to be read, but {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_survive_anything() {
        let corpus = [
            Config::default().show(),
            "[http]\nlisten = [\"127.0.0.1:80\"]\ncontact = \"\u{e4}\\u0001\"\nthreads = 3\n[log]\nformat = \"json\""
                .to_owned(),
            "[http]\nlissten = []\nbody_octets = \"8M\"\n\n[stroe]\n[log]\n  format = \"xml\"\nx = { y = 1 }"
                .to_owned(),
        ];
        crate::mutation::run(&corpus.map(String::into_bytes), super::run);
    }
}
