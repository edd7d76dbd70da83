//! Who owns a file of the machine that services see.
//!
//! A volume whose file system can map owners shows each service the ids that are stored. The initramfs cannot: what
//! only services with the same ids see of it is given to these ids at build. What others see as well keeps the ids
//! that the config says, which inside are nobody's.

use std::collections::BTreeSet;

use manifest::{IDS_PER_CONTAINER, Ids, Mount, Service};

use crate::target::is_within;

/// The stored number of the config's user or group `id` for the file or folder at `path`.
pub fn stored(id: u32, path: &str, services: &[Service]) -> u32 {
    let sees = |service: &&Service| {
        let of = |mount: &Mount| matches!(mount, Mount::Bind { source, .. } if is_within(path, source));
        service.container.mounts.iter().any(of)
    };
    let first = |service: &Service| match service.container.ids {
        Ids::Own { first } => first,
        Ids::Machine => 0,
    };
    let ranges: BTreeSet<u32> = services.iter().filter(sees).map(first).collect();
    match ranges.first() {
        Some(first) if ranges.len() == 1 && id < IDS_PER_CONTAINER => first + id,
        _ => id,
    }
}
