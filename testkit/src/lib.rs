//! Generator of test certificates and fixtures of real peers.
