//! `keyrink-testkit`: makes test certificates and load.

use std::io::{self, BufWriter, Write};

use clap::{Args, Parser, Subcommand};
use keyrink_testkit::generate;

#[derive(Parser)]
#[command(about = "Test certificates and load for Keyrink")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write small Ed25519 certificates to standard output
    Generate(Generate),
}

#[derive(Args)]
struct Generate {
    /// How many
    #[arg(long, default_value_t = 50_000)]
    count: u64,
    /// The number of the first one
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Another seed gives other keys
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    match Cli::parse().command {
        Command::Generate(options) => {
            let mut out = BufWriter::new(io::stdout().lock());
            generate::write(&mut out, options.seed, options.first..options.first + options.count)?;
            out.flush()?;
        }
    }
    Ok(())
}
