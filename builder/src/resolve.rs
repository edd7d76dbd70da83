//! From names to digests and numbers: what the config's images and kernel package stand for right now, or stood for
//! when the lock was written, and which user ids its services have.

use std::collections::BTreeSet;

use crate::config::{Config, KernelSource};
use crate::error::{Error, Result, gather};
use crate::ids;
use crate::kernel;
use crate::lock::Lock;
use crate::oci::reference::{Reference, Transport};
use crate::oci::source::{self, Bounds};
use crate::store::Store;

/// The lock that fits the config, or everything that has no digest.
///
/// Images of this machine's own are resolved anew each time: who rebuilds an image wants it in the machine. What
/// comes from elsewhere stays what `old` pins it to.
pub fn resolve(config: &Config, old: Option<&Lock>, store: &Store) -> Result<Lock, Vec<Error>> {
    let mut errors = Vec::new();
    let mut asked = BTreeSet::new();
    let mut lock = Lock::default();
    let bounds = Bounds { base: &config.base, store, limits: config.layers.limits };
    let services = config.services.iter().map(|service| &service.image);
    let kernel_image = match &config.kernel.source {
        KernelSource::Image(reference) => Some(reference),
        KernelSource::Package(_) | KernelSource::Files { .. } => None,
    };
    for reference in services.chain(kernel_image) {
        let written = reference.to_string();
        if !asked.insert(written.clone()) {
            continue;
        }
        let pinned = old.and_then(|old| old.images.get(&written)).filter(|_| is_remote(reference));
        let digest = pinned.map_or_else(|| source::resolve(reference, bounds), |digest| Ok(*digest));
        lock.images.extend(gather(&mut errors, digest).map(|digest| (written, digest)));
    }
    if let KernelSource::Package(name) = &config.kernel.source {
        let pinned = old.and_then(|old| old.kernel.clone()).filter(|kernel| kernel.package == *name);
        lock.kernel = gather(&mut errors, pinned.map_or_else(|| kernel::resolve(name), Ok));
    }
    let given = old.map(|old| &old.ids);
    let ids = ids::allocate(config, given.unwrap_or(&ids::Ranges::new()));
    lock.ids = gather(&mut errors, ids).unwrap_or_default();
    if errors.is_empty() { Ok(lock) } else { Err(errors) }
}

fn is_remote(reference: &Reference) -> bool {
    matches!(reference.transport(), Transport::Registry(_))
}

/// Refuses a lock that is missing, or says something else than the config and its images do now.
pub fn require_fresh(old: Option<&Lock>, now: &Lock, path: &std::path::Path) -> Result<()> {
    let file = path.display();
    let hint = "build once without --locked and commit the lock file";
    let Some(old) = old else { return Err(Error::new(format!("there is no lock file `{file}`")).hint(hint)) };
    let differences = old.diff(now);
    if differences.is_empty() {
        return Ok(());
    }
    Err(Error::new(format!("the lock file `{file}` is stale: {}", differences.join("; "))).hint(hint))
}
