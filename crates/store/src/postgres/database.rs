//! The way to the database: the runtime that drives all connections, how they are opened, and the memory that it is away.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::runtime::Runtime;
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::address::Address;
use super::connection::Connection;
use super::fault::{Cure, Fault};
use super::sql::{self, Sql};
use super::wait::wait;
use crate::StoreError;

/// A database that may be away.
pub(super) struct Database {
    address: Address,
    tls: MakeRustlsConnect,
    /// Statements that every session begins with.
    session: Vec<Sql>,
    /// `None` only while this is dropped.
    runtime: Option<Runtime>,
    /// Until when it is not worth trying again, and why.
    away: Mutex<Option<(Instant, StoreError)>>,
    /// Whether things go wrong on purpose.
    #[cfg(test)]
    pub(super) hostile: bool,
}

impl Database {
    /// Nothing is connected yet.
    pub(super) fn new(address: Address, session: Vec<Sql>) -> Result<Self, StoreError> {
        let tls = MakeRustlsConnect::new(tls(&address)?);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("store-postgres")
            .enable_all()
            .build()
            .map_err(|error| StoreError::Unavailable(format!("no thread for the database: {error}")))?;
        Ok(Self {
            address,
            tls,
            session,
            runtime: Some(runtime),
            away: Mutex::default(),
            #[cfg(test)]
            hostile: false,
        })
    }

    /// How it is called in messages.
    pub(super) fn name(&self) -> &str {
        &self.address.name
    }

    /// What a caller is told about a fault.
    pub(super) fn told(&self, fault: Fault) -> StoreError {
        fault.at(self.name())
    }

    /// A new session. While the database refuses connections only one caller in a while finds out for all; as long as an
    /// attempt gets no answer at all, others try too.
    pub(super) fn connect(&self) -> Result<Connection, Fault> {
        let mut away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, error)) = away.as_ref().filter(|(until, _)| Instant::now() < *until) {
            return Err(Fault::Away(error.clone()));
        }
        // Others need not wait for what may take seconds.
        *away = None;
        drop(away);
        let connected = self.open();
        if let Err(fault) = connected {
            if fault.cure() == Cure::Tell && !matches!(fault, Fault::Slow) {
                return Err(fault);
            }
            let error = self.told(fault);
            let mut away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
            *away = Some((Instant::now() + AWAY, error.clone()));
            return Err(Fault::Away(error));
        }
        connected
    }

    fn open(&self) -> Result<Connection, Fault> {
        let runtime = self.runtime.as_ref().expect("it is there until the drop");
        let (config, tls) = (self.address.config.clone(), self.tls.clone());
        let connecting = runtime.spawn(async move {
            let (client, connection) = config.connect(tls).await?;
            let told = ["server_version", "server_encoding"];
            let told = told.map(|parameter| connection.parameter(parameter).map(str::to_owned));
            let driving = tokio::spawn(async move {
                // Whoever uses the client learns of it.
                let _ = connection.await;
            });
            Ok::<_, tokio_postgres::Error>(Connection::new(client, driving.abort_handle(), told))
        });
        let mut connection = wait(Instant::now() + CONNECT_WITHIN, connecting)
            .ok_or(Fault::Slow)?
            .map_err(|_| Fault::Slow)??;
        for statement in &self.session {
            connection.set(*statement)?;
        }
        #[cfg(test)]
        if self.hostile {
            connection.hostile = Some(Default::default());
        }
        Ok(connection)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // May happen on a thread of another runtime, where waiting for this one is not allowed.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// What every session begins with: limits of time, and plans that go by the indexes.
pub(super) fn session(read_only: bool, lazy: bool) -> Vec<Sql> {
    let mut session = vec![
        sql::NO_SCANS,
        sql::NO_HASHES,
        sql::NO_MERGES,
        sql::STATEMENT_TIME,
        sql::LOCK_TIME,
    ];
    session.extend(read_only.then_some(sql::READ_ONLY));
    session.extend(lazy.then_some(sql::LAZY));
    session
}

fn tls(address: &Address) -> Result<ClientConfig, StoreError> {
    let failed =
        |error: &dyn std::fmt::Display| StoreError::Unavailable(format!("no TLS for {}: {error}", address.name));
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&error))?;
    if address.config.get_ssl_mode() == SslMode::Disable {
        return Ok(builder
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth());
    }
    let Some(file) = &address.authorities else {
        let builder = builder.with_platform_verifier().map_err(|error| failed(&error))?;
        return Ok(builder.with_no_client_auth());
    };
    let mut roots = RootCertStore::empty();
    let unread = |error: &dyn std::fmt::Display| failed(&format!("{}: {error}", file.display()));
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| unread(&error))? {
        let certificate = certificate.map_err(|error| unread(&error))?;
        roots.add(certificate).map_err(|error| unread(&error))?;
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// The limit for all addresses and the handshake.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// How long callers are told at once that the database is away.
const AWAY: Duration = Duration::from_millis(300);
