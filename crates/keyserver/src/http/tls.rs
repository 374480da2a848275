//! HTTPS: the certificate in files that are read again on demand.

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use tokio_rustls::TlsAcceptor;

/// The certificate this server shows, and where it came from.
#[derive(Debug)]
pub struct Certificate {
    chain: PathBuf,
    key: PathBuf,
    current: RwLock<Arc<CertifiedKey>>,
}

/// A certificate or its key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM file is missing or unreadable, or does not hold what it should.
    #[error("cannot read {path}: {reason}", path = .0.display(), reason = .1)]
    File(PathBuf, String),
    /// The key is of an unknown kind, or is not the certificate's.
    #[error("{path}: {reason}", path = .0.display(), reason = .1)]
    Key(PathBuf, rustls::Error),
}

impl Certificate {
    /// Reads both PEM files.
    pub fn load(chain: &Path, key: &Path) -> Result<Self, TlsError> {
        Ok(Self {
            chain: chain.into(),
            key: key.into(),
            current: RwLock::new(read(chain, key)?),
        })
    }

    /// Reads both files again. After an error the old certificate stays in use.
    pub fn reload(&self) -> Result<(), TlsError> {
        let fresh = read(&self.chain, &self.key)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// Accepts TLS 1.2 and 1.3, and HTTP/2 or HTTP/1.1 over it.
pub(super) fn acceptor(certificate: Arc<Certificate>) -> Result<TlsAcceptor, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![HTTP_2.to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The name of HTTP/2 in ALPN (RFC 9113, section 3.1).
pub(super) const HTTP_2: &[u8] = b"h2";

fn read(chain: &Path, key: &Path) -> Result<Arc<CertifiedKey>, TlsError> {
    let unreadable = |path: &Path, reason: String| TlsError::File(path.into(), reason);
    let certificates: Vec<_> = CertificateDer::pem_file_iter(chain)
        .and_then(Iterator::collect)
        .map_err(|error| unreadable(chain, error.to_string()))?;
    if certificates.is_empty() {
        return Err(unreadable(chain, "it holds no certificate".into()));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, error.to_string()))?;
    let certified = CertifiedKey::from_der(certificates, private, &aws_lc_rs::default_provider())
        .map_err(|error| TlsError::Key(key.into(), error))?;
    Ok(Arc::new(certified))
}
