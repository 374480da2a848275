//! The program `keyrink`: parses the command line, runs what was asked for, prints what went wrong.

use clap::Parser;
use keyrink::cli::{Cli, Command, ConfigCommand};
use keyrink::config::Config;
use keyrink::{admin, client, serve};
use std::error::Error;
use std::process::ExitCode;

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("keyrink: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), Box<dyn Error>> {
    match command {
        Command::Serve(arguments) => serve::run(&arguments)?,
        Command::Load(arguments) => admin::load::run(&arguments)?,
        Command::ImportHockeypuck(arguments) => admin::import::run(&arguments)?,
        Command::Dump(arguments) => admin::dump::run(&arguments)?,
        Command::Check(arguments) => admin::check::run(&arguments)?,
        Command::Rebuild(arguments) => admin::rebuild::run(&arguments)?,
        Command::Migrate(arguments) => admin::migrate(&arguments)?,
        Command::Explain(arguments) => admin::explain::run(&arguments)?,
        Command::Backup(arguments) => admin::backup(&arguments)?,
        Command::Peers(arguments) => admin::peers::run(&arguments)?,
        Command::Config(ConfigCommand::Show(source)) => print!("{}", source.configuration()?.show()),
        Command::Config(ConfigCommand::Check { file }) => {
            Config::read(Some(&file), [])?;
            println!("{}: right", file.display());
        }
        Command::Admin(arguments) => admin::decide::run(&arguments)?,
        Command::Get(arguments) => client::get(&arguments)?,
        Command::Search(arguments) => client::search(&arguments)?,
    }
    Ok(())
}
