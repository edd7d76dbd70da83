//! The command line of `coracle ctl`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::ctl::Address;

/// Which machine, and what of it.
#[derive(Debug, Args)]
pub struct Ctl {
    /// The machine, as `ls` names it [default: the only one that runs here]
    #[arg(short, long, global = true, value_name = "NAME", conflicts_with = "socket")]
    pub machine: Option<String>,
    /// The machine's socket: of the port `coracle.ctl` under a QEMU of your own, or the one that a service has; or a port of
    /// its vsock, as vsock:CID:PORT, or vsock:FILE:PORT where the VMM offers that as a file
    #[arg(long, global = true, value_name = "ADDRESS")]
    pub socket: Option<Address>,
    /// What to do with it.
    #[command(subcommand)]
    pub command: Control,
}

/// What can be done with a machine that runs.
#[derive(Debug, Subcommand)]
pub enum Control {
    /// List the machines that `coracle run` runs here
    Ls {
        /// Print JSON, a line for each
        #[arg(long)]
        json: bool,
    },
    /// Print how services are, and since when
    Status {
        /// These only
        #[arg(value_name = "SERVICE")]
        services: Vec<String>,
        /// Print JSON, a line for each
        #[arg(long)]
        json: bool,
    },
    /// Print what services have written
    Logs(Logs),
    /// Print what has happened
    Events {
        /// Go on with what happens from now on
        #[arg(short, long)]
        follow: bool,
        /// Print JSON, a line for each
        #[arg(long)]
        json: bool,
    },
    /// Start services, whatever they have been through, and wait until they are ready
    Start(Order),
    /// Stop services until they are started again, and wait until they have ended
    Stop(Order),
    /// End services, start them again, and wait until they are ready
    Restart(Order),
    /// Run a program in a service's container; its exit code is ours
    Exec(Exec),
    /// Print what services use: processor, memory, processes, disks
    Top(Top),
    /// Print how the machine came up, as a chart
    Boot {
        /// Write the chart as a picture
        #[arg(long, value_name = "FILE", conflicts_with = "json")]
        svg: Option<PathBuf>,
        /// Print JSON, a line for each service
        #[arg(long)]
        json: bool,
    },
    /// Stop all services in order and switch the machine off
    Poweroff(Power),
    /// Stop all services in order and boot the machine again; `coracle run` ends there
    Reboot(Power),
    /// Stop all services in order and the processors with them; the power stays on
    Halt(Power),
}

/// Options of `logs`.
#[derive(Debug, Args)]
pub struct Logs {
    /// These only
    #[arg(value_name = "SERVICE")]
    pub services: Vec<String>,
    /// Go on with what they write from now on
    #[arg(short, long)]
    pub follow: bool,
    /// The last lines of each only
    #[arg(short = 'n', long = "lines", value_name = "N")]
    pub tail: Option<u32>,
    /// Print when each line was written, in UTC
    #[arg(short, long)]
    pub timestamps: bool,
    /// Print JSON, a line for each
    #[arg(long)]
    pub json: bool,
}

/// Options of `start`, `stop` and `restart`.
#[derive(Debug, Args)]
pub struct Order {
    /// Which
    #[arg(required = true, value_name = "SERVICE")]
    pub services: Vec<String>,
    /// Do not wait for what comes of it
    #[arg(long)]
    pub no_wait: bool,
}

/// Options of `poweroff`, `reboot` and `halt`.
#[derive(Debug, Args)]
pub struct Power {
    /// Do not wait for the machine's end
    #[arg(long)]
    pub no_wait: bool,
}

/// Options of `exec`.
#[derive(Debug, Args)]
pub struct Exec {
    /// Let the program read what is typed or piped here
    #[arg(short, long)]
    pub interactive: bool,
    /// Give the program a terminal: this one
    #[arg(short, long)]
    pub terminal: bool,
    /// A variable of its environment, beside and over the service's
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = variable)]
    pub env: Vec<String>,
    /// Its working directory [default: the service's]
    #[arg(short, long, value_name = "DIR", value_parser = absolute)]
    pub working_dir: Option<String>,
    /// Whose container
    pub service: String,
    /// The program and its arguments
    #[arg(required = true, value_name = "PROGRAM", trailing_var_arg = true, allow_hyphen_values = true)]
    pub argv: Vec<String>,
}

/// Options of `top`.
#[derive(Debug, Args)]
pub struct Top {
    /// Print once, also on a terminal
    #[arg(long)]
    pub once: bool,
    /// Print once, for Prometheus
    #[arg(long, conflicts_with_all = ["once", "json"])]
    pub metrics: bool,
    /// Print once, as JSON, a line for the machine and each service
    #[arg(long)]
    pub json: bool,
}

fn variable(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((name, _)) if !name.is_empty() => Ok(text.to_owned()),
        _ => Err("it is written NAME=VALUE".to_owned()),
    }
}

fn absolute(text: &str) -> Result<String, String> {
    if text.starts_with('/') { Ok(text.to_owned()) } else { Err("it begins with `/`".to_owned()) }
}
