//! `coracle`: one TOML file in, a bootable machine out.
//!
//! Each function of [`build`] is one stage of ARCHITECTURE.md, in its order.
#![cfg_attr(fuzzing, no_main)]
#![cfg_attr(fuzzing, allow(dead_code, reason = "libFuzzer's `main` takes the place of ours"))]

mod archive;
mod artifact;
mod board;
mod build;
mod cache;
mod capability;
mod cli;
mod config;
mod convert;
mod ctl;
mod error;
mod fetch;
#[cfg(any(test, fuzzing))]
mod fuzz;
mod ids;
mod inspect;
mod kernel;
mod layer;
mod lock;
mod machines;
#[cfg(test)]
mod mutation;
mod oci;
mod output;
mod plan;
mod process;
mod progress;
mod resolve;
mod root;
mod run;
mod seccomp;
mod simulate;
mod source_file;
mod store;
mod target;
mod tool;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use anstream::ColorChoice;
use clap::Parser;

use build::Failure;
use cli::{Cache, Cli, Command};
use error::Context;
use store::Store;

fn main() -> ExitCode {
    match execute(&Cli::parse().command) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            let colour = std::io::stderr().is_terminal() && ColorChoice::global() != ColorChoice::Never;
            let text = failure.render(colour && std::env::var_os("NO_COLOR").is_none());
            // Whoever does not read stderr still gets the exit code.
            drop(writeln!(std::io::stderr(), "{text}"));
            ExitCode::FAILURE
        }
    }
}

/// Carries out a command; its results go to stdout, what it says on the way to stderr.
fn execute(command: &Command) -> Result<u8, Failure> {
    match command {
        Command::Build { source, output } => {
            let built = build::build(&source.configs, &source.inputs, output)?;
            print(&built.summary())
        }
        Command::Check { source } => {
            let plan = build::plan(&source.configs, &source.inputs)?.plan;
            let services = match plan.manifest.services.len() {
                1 => "1 service".to_owned(),
                count => format!("{count} services"),
            };
            print(&format!("{}: no problems in {services}\n", plan.name))
        }
        Command::Plan { source, json } => {
            let plan = build::plan(&source.configs, &source.inputs)?.plan;
            print(&if *json { plan.json() } else { plan.to_string() })
        }
        Command::Simulate { configs, events, until } => {
            let config = config::load(configs)?;
            print(&simulate::timeline(&config, events, *until)?)
        }
        Command::Run(options) => build::run(options),
        Command::Ctl(options) => Ok(ctl::control(options)?),
        Command::Cache { command } => cache(command),
        Command::Layer { command } => inspect::inspect(command).map(|()| 0).map_err(Failure::from),
    }
}

/// Looks at the store or takes things away from it.
fn cache(command: &Cache) -> Result<u8, Failure> {
    let store = Store::open()?;
    let removed = match command {
        Cache::Ls { json } => {
            let items = cache::list(&store)?;
            return print(&if *json { cache::json(&items) } else { cache::table(&items) });
        }
        Cache::Verify => {
            let (read, removed) = cache::verify(&store)?;
            let gone = removed.iter().map(|item| format!("damaged and removed: {}\n", item.name));
            return print(&(gone.collect::<String>() + &format!("read {}\n", cache::sum(&read))));
        }
        Cache::Rm { all: true, .. } => cache::clear(&store)?,
        Cache::Rm { names, .. } => cache::remove(&store, names)?,
        Cache::Prune { older_than } => cache::prune(&store, *older_than)?,
    };
    print(&format!("removed {}\n", cache::sum(&removed)))
}

/// Writes a result.
fn print(text: &str) -> Result<u8, Failure> {
    output::write(|out| out.write_all(text.as_bytes()).doing(|| "write to stdout"))?;
    Ok(0)
}
