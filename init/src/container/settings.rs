//! Settings of a container's own namespaces. The child writes them through the machine's `/proc`, before anything of
//! an image is mounted: the kernel shows there what belongs to the namespaces of whoever looks.

use std::fs;

use manifest::Sysctl;
use nix::errno::Errno;

use crate::error::{Error, Result};

/// Paths and values, checked.
pub(super) struct Settings(Box<[Sysctl]>);

impl Settings {
    /// Refuses what leads out of `/proc/sys`.
    pub(super) fn prepare(sysctls: &[Sysctl]) -> Result<Self> {
        match sysctls.iter().find(|sysctl| !is_inside(&sysctl.path)) {
            Some(sysctl) => Err(Error::said("set", sysctl.path.clone(), "it is no path below /proc/sys")),
            None => Ok(Self(sysctls.into())),
        }
    }

    /// Writes all of them, or says which one cannot be.
    pub(super) fn apply(&self) -> std::result::Result<(), (usize, Errno)> {
        for (index, Sysctl { path, value }) in self.0.iter().enumerate() {
            let written = fs::write(format!("/proc/sys/{path}"), value);
            written.map_err(|error| (index, error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)))?;
        }
        Ok(())
    }

    pub(super) fn name(&self, index: usize) -> String {
        self.0.get(index).map(|sysctl| sysctl.path.replace('/', ".")).unwrap_or_default()
    }
}

fn is_inside(path: &str) -> bool {
    path.split('/').all(|name| !matches!(name, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_setting_leads_out_of_its_folder() {
        let of = |path: &str| Settings::prepare(&[Sysctl { path: path.to_owned(), value: "1".to_owned() }]);
        assert_eq!(
            of("net/core/somaxconn").ok().map(|settings| settings.name(0)),
            Some("net.core.somaxconn".to_owned())
        );
        for path in
            ["", "/etc/passwd", "../sysrq-trigger", "net/../../sysrq-trigger", "net//core", "net/./core"]
        {
            assert!(of(path).is_err(), "{path}");
        }
    }
}
