//! OpenPGP certificates as a keyserver needs them.
