//! `keyrink peers`: how it stands with each partner, and single sessions by hand.
//!
//! A server keeps what it knows about its partners in the store, so the table is the same whatever process serves, or
//! if none does.

use super::{AdminError, open_store, open_to_read};
use crate::cli::{self, PeersCommand};
use crate::config::{self, Config, HostPort};
use crate::peers::dataset::{Manners, REALM};
use crate::peers::gossip::{self, connect};
use crate::peers::partner::{self, Partner};
use crate::peers::session::{self, Role};
use crate::peers::status::{self, Report, ago};
use crate::peers::{Node, recovery};
use keyrink_store::sqlite::Durability;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

/// `keyrink peers`, alone or with one of its subcommands.
pub fn run(arguments: &cli::Peers) -> Result<(), AdminError> {
    let config = arguments.source.configuration()?;
    match &arguments.command {
        None => show(&config, arguments.json),
        Some(PeersCommand::Test { address }) => on_runtime(test(&config, address)),
        Some(PeersCommand::Sync { name }) => on_runtime(sync(&config, name)),
    }
}

fn on_runtime(work: impl Future<Output = Result<(), AdminError>>) -> Result<(), AdminError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| AdminError::Peer(format!("cannot start: {error}")))?;
    runtime.block_on(work)
}

/// The table.
fn show(config: &Config, json: bool) -> Result<(), AdminError> {
    let store = open_to_read(config)?;
    let names = config.partners.iter().map(|partner| partner.label().to_owned());
    let reports = status::reports(&*store, &names.collect::<Vec<_>>())?;
    if json {
        let text = serde_json::to_string_pretty(&reports).map_err(|error| AdminError::Peer(error.to_string()))?;
        println!("{text}");
    } else {
        print!("{}", table(&reports, partner::now()));
    }
    Ok(())
}

fn table(reports: &[Report], now: u64) -> String {
    if reports.is_empty() {
        return "no partners: name them in [[partner]] tables of the configuration\n".to_owned();
    }
    let head = [
        "partner",
        "state",
        "dataset",
        "last session",
        "differences",
        "received",
        "sent",
        "queue",
        "refused",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    for report in reports {
        let dataset = report.dataset.clone().unwrap_or_else(|| "-".to_owned());
        let last = report
            .last_session
            .map_or_else(|| "never".to_owned(), |last| ago(now, last));
        let numbers = [
            report.differences,
            report.received,
            report.sent,
            report.queue,
            report.refused,
        ];
        let [differences, received, sent, queue, refused] = numbers.map(|number| number.to_string());
        let state = report.state.clone();
        rows.push([
            report.name.clone(),
            state,
            dataset,
            last,
            differences,
            received,
            sent,
            queue,
            refused,
        ]);
    }
    let mut text = String::new();
    let widths: [usize; 9] =
        std::array::from_fn(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0));
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    for report in reports {
        if let Some((when, error)) = &report.last_error {
            let _ = writeln!(text, "{}: {}: {error}", report.name, ago(now, *when));
        }
        if !report.omitted.is_empty() {
            let _ = writeln!(text, "{}: left out of sessions: {}", report.name, report.omitted);
        }
        for part in report.refused_parts.iter().filter(|part| part.until > now) {
            let _ = writeln!(
                text,
                "{}: it refuses the part {}: {}",
                report.name, part.prefix, part.text
            );
        }
        if let Some((until, reason)) = report.barred.as_ref().filter(|(until, _)| *until > now) {
            let _ = writeln!(text, "{}: left alone for {} s: {reason}", report.name, until - now);
        }
    }
    text
}

/// Connects once and tells what there is. Nothing is fetched and nothing written.
async fn test(config: &Config, address: &str) -> Result<(), AdminError> {
    let _: HostPort = address
        .parse()
        .map_err(|error| AdminError::Peer(format!("{address:?} is {error}")))?;
    let store = open_to_read(config)?;
    let node = Node::new(config, Arc::clone(&store));
    let known = config.partners.iter().find(|partner| partner.recon == address).cloned();
    let partner = known.unwrap_or_else(|| config::Partner {
        recon: address.to_owned(),
        ..config::Partner::default()
    });
    let partner =
        Partner::new(&partner, &*store).ok_or_else(|| AdminError::Peer(format!("{address:?} is no address")))?;
    let unreached = |error| AdminError::Peer(format!("{address} cannot be reached: {error}"));
    let stream = connect(&node.addresses, &partner).await.map_err(unreached)?;
    println!("connected to {}", stream.peer_addr().map_err(unreached)?);
    let met = session::run(
        stream,
        Role::Calling,
        node.settings(&partner, REALM),
        Manners::default(),
        &node.sets,
        |peer| {
            println!("it announces {}", partner::describe(peer));
            println!(
                "it serves certificates at port {}",
                peer.http_port.map_or_else(|| "none".into(), |port| port.to_string())
            );
            true
        },
    );
    let met = met.await.map_err(|error| AdminError::Peer(unmet(&error)))?;
    let held = node
        .sets
        .iter()
        .find(|set| set.kind().name == met.kind.name)
        .map_or(0, |set| set.count());
    let tally = met.found.tally;
    println!("dataset {}: {held} elements here", met.kind.name);
    println!(
        "it has {} that are not here, and lacks {} of ours",
        met.found.missing.len(),
        tally.lacking
    );
    println!(
        "{} requests, {} octets received, {} sent: {}",
        tally.requests,
        met.octets.received,
        met.octets.sent,
        status::plain(&met.found.end.to_string())
    );
    Ok(())
}

fn unmet(error: &session::SessionError) -> String {
    use keyrink_recon::session::Failure;
    match error {
        session::SessionError::Handshake(Failure::Disconnected) => gossip::BUSY.to_owned(),
        other => status::plain(&other.to_string()),
    }
}

/// One session and what follows from it, now.
async fn sync(config: &Config, name: &str) -> Result<(), AdminError> {
    let store = open_store(config, Durability::Full)?;
    let node = Arc::new(Node::new(config, Arc::clone(&store)));
    let wanted = config.partners.iter().find(|partner| partner.label() == name);
    let wanted = wanted.ok_or_else(|| AdminError::Peer(format!("no [[partner]] has the name {name:?}")))?;
    let partner = Partner::new(wanted, &*store).ok_or_else(|| AdminError::Peer(format!("{name:?} has no address")))?;
    let partner = Arc::new(partner);
    partner.unbar();
    let before = partner.report();
    if !gossip::call(&node, &partner).await {
        let why = partner.report().last_error.map_or_else(String::new, |(_, error)| error);
        return Err(AdminError::Peer(why));
    }
    let differences = partner.report().differences;
    println!("it has {differences} elements that are not here");
    let progress = super::progress::Progress::for_terminal(differences);
    let mut work = std::pin::pin!(recovery::drain(&node, &partner));
    loop {
        tokio::select! {
            () = &mut work => break,
            () = tokio::time::sleep(SHOW_EVERY) => {
                let done = differences.saturating_sub(partner.queue.len() as u64);
                progress.at(done, done);
            }
        }
    }
    progress.finish();
    let after = partner.report();
    partner.save_if_changed(&*store)?;
    println!(
        "{} certificates fetched in {} requests",
        after.fetched - before.fetched,
        after.requests - before.requests
    );
    match after
        .last_error
        .filter(|error| Some(error) != before.last_error.as_ref())
    {
        Some((_, error)) => Err(AdminError::Peer(error)),
        None => Ok(()),
    }
}

const SHOW_EVERY: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_how_it_stands() {
        let report = Report {
            name: "a".into(),
            state: "waiting".into(),
            last_session: Some(940),
            last_error: Some((0, "it closed the connection at once".into())),
            ..Report::default()
        };
        let text = table(&[report], 1000);
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[1].starts_with("a        waiting  -        60 s ago"), "{text}");
        assert_eq!(lines[2], "a: 16 min ago: it closed the connection at once");
        assert!(table(&[], 0).contains("[[partner]]"));
    }
}
