//! Which machine is meant.

use std::path::Path;

use manifest::control::TARGET;

use super::address::Address;
use super::table::Table;
use super::time;
use crate::cli::Ctl;
use crate::config::suggestion;
use crate::error::{Context, Error, Result};
use crate::machines::{About, Machines};

/// Where a machine is.
#[derive(Debug)]
pub struct Place {
    /// Its address, as it can be used.
    pub address: Address,
    /// As it is named in messages.
    pub shown: String,
    /// Keeps the address good.
    _machines: Option<Machines>,
}

/// The machine that is named, or the only one.
pub fn find(options: &Ctl) -> Result<Place> {
    if let Some(address) = &options.socket {
        return Ok(Place::at(address.clone()));
    }
    // Inside of a service, where there is no other machine than its own.
    if options.machine.is_none() && Path::new(TARGET).exists() {
        return Ok(Place::at(Address::File(TARGET.into())));
    }
    let machines = Machines::known()?;
    let running = machines.as_ref().map_or(Ok(Vec::new()), Machines::list)?;
    let about = choose(&running, options.machine.as_deref())?;
    let shown = about.name.to_string();
    match machines {
        Some(machines) => {
            let address = Address::File(machines.socket(about));
            Ok(Place { address, shown, _machines: Some(machines) })
        }
        None => Err(none()),
    }
}

impl Place {
    /// One that is called so in messages.
    pub fn new(address: Address, shown: impl Into<String>) -> Self {
        Self { address, shown: shown.into(), _machines: None }
    }

    fn at(address: Address) -> Self {
        let shown = address.to_string();
        Self::new(address, shown)
    }
}

fn none() -> Error {
    Error::new("no machine runs here")
        .hint("`coracle run CONFIG` runs one; `--socket ADDRESS` leads to one under a QEMU of your own")
}

/// One of those that run: by its name, or by name and process where two have the same.
fn choose<'a>(running: &'a [About], wanted: Option<&str>) -> Result<&'a About> {
    let names = || running.iter().map(|about| about.name.as_str());
    let meant: Vec<&About> = match wanted {
        None => running.iter().collect(),
        Some(name) => {
            running.iter().filter(|about| name == about.name.as_str() || name == about.folder()).collect()
        }
    };
    match (&meant[..], wanted) {
        ([about], _) => Ok(about),
        ([], None) => Err(none()),
        ([], Some(name)) => {
            let error =
                Error::new(format!("no machine called `{name}` runs here{}", suggestion(name, names())));
            Err(error.hint("`coracle ctl ls` lists those that do"))
        }
        (several, _) => {
            let is_clear = |about: &&About| names().filter(|name| *name == about.name.as_str()).count() == 1;
            let names = several.iter().map(|about| match is_clear(about) {
                true => format!("`{}`", about.name),
                false => format!("`{}`", about.folder()),
            });
            let names: Vec<String> = names.collect();
            let hint = "`-m NAME` says which one is meant";
            Err(Error::new(format!("several machines run here: {}", names.join(", "))).hint(hint))
        }
    }
}

/// The machines that run here, for a person or for programs.
pub fn list(is_json: bool) -> Result<String> {
    let running = Machines::known()?.map_or(Ok(Vec::new()), |machines| machines.list())?;
    if is_json {
        let lines = running.iter().map(|about| serde_json::to_string(about).map(|line| line + "\n"));
        return lines.collect::<std::result::Result<String, _>>().doing(|| "write JSON");
    }
    let mut table = Table::new(&["NAME", "PID", "SINCE"]);
    for about in &running {
        table.row([about.name.to_string(), about.pid.to_string(), time::utc(about.since * 1000, false)]);
    }
    Ok(table.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(name: &str, pid: u32) -> About {
        About { name: name.to_owned().try_into().unwrap(), pid, since: 0 }
    }

    #[test]
    fn the_only_machine_needs_no_name_and_the_others_are_told_apart() {
        let [shop, other, twin] = [about("shop", 10), about("blog", 11), about("shop", 12)];
        let both = [shop.clone(), other.clone()];
        let all = [shop.clone(), other.clone(), twin.clone()];
        assert_eq!(choose(std::slice::from_ref(&shop), None), Ok(&shop));
        assert_eq!(choose(&both, Some("blog")), Ok(&other));
        assert_eq!(choose(&all, Some("shop.12")), Ok(&twin));
        for (running, wanted, said) in [
            (&both[..0], None, "no machine runs here"),
            (&both[..], None, "several machines run here: `shop`, `blog`"),
            (&all[..], None, "several machines run here: `shop.10`, `blog`, `shop.12`"),
            (&all[..], Some("shop"), "several machines run here: `shop.10`, `shop.12`"),
            (&both[..], Some("ship"), "no machine called `ship` runs here (did you mean `shop`?)"),
        ] {
            let error = choose(running, wanted).unwrap_err();
            assert_eq!(error.to_string(), said);
            assert!(error.advice().is_some());
        }
    }
}
