//! What the operating system and the service manager tell us, and what we tell them.
//!
//! Signals are awaited on a thread of their own until the process ends: somebody who loses patience with an orderly end
//! is heard however busy the server is.

use sd_notify::NotifyState;
use std::io;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// The signals this program obeys.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

/// What a signal asks for.
enum Request {
    /// This signal, INT or TERM: finish and end.
    Stop(SignalKind),
    /// HUP: read again what can be read again.
    Reload,
}

/// Takes over INT, TERM and HUP. Every HUP calls `reload`; the first INT or TERM resolves the future that is returned, the
/// second one ends the process at once, with the status that a shell gives to a process which died of that signal.
pub fn obey(reload: impl Fn() + Send + Sync + 'static) -> io::Result<impl Future<Output = ()>> {
    let (stop, stopped) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let entered = runtime.enter();
    let mut signals = Signals::listen()?;
    drop(entered);
    let wait = async move {
        signals.next_stop(&reload).await;
        stopping();
        tracing::info!("stopping");
        let _ = stop.send(());
        let again = signals.next_stop(&reload).await;
        tracing::warn!("stopping at once: a second signal came before the end");
        std::process::exit(DIED_OF_SIGNAL + again.as_raw_value());
    };
    std::thread::Builder::new()
        .name("keyrink-signals".into())
        .spawn(move || runtime.block_on(wait))?;
    Ok(async {
        let _ = stopped.await;
    })
}

/// A shell adds the number of the signal to this.
const DIED_OF_SIGNAL: i32 = 128;

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for INT or TERM, reloading meanwhile.
    async fn next_stop(&mut self, reload: &impl Fn()) -> SignalKind {
        loop {
            match self.next().await {
                Request::Stop(signal) => return signal,
                Request::Reload => reload(),
            }
        }
    }

    async fn next(&mut self) -> Request {
        tokio::select! {
            _ = self.interrupt.recv() => Request::Stop(SignalKind::interrupt()),
            _ = self.terminate.recv() => Request::Stop(SignalKind::terminate()),
            _ = self.hang_up.recv() => Request::Reload,
        }
    }
}

/// Tells systemd, if it started us, that requests are answered now.
pub fn ready() {
    notify(NotifyState::Ready);
}

/// Tells systemd that we are ending.
fn stopping() {
    notify(NotifyState::Stopping);
}

/// Tells systemd again and again that the runtime is alive, if it wants to know. Never ends.
pub async fn watchdog() {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    let mut ticks = tokio::time::interval((limit / 2).max(Duration::from_millis(1)));
    loop {
        ticks.tick().await;
        notify(NotifyState::Watchdog);
    }
}

fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the service manager could not be told");
    }
}
