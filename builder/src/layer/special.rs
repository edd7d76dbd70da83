//! The files of a layer that somebody who looks at a machine wants to know of: device nodes, and programs that give
//! privileges to whoever runs them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::artifact::erofs::{Kind, Metadata};
use crate::error::shown;

/// The most paths that are named; of more there is the number.
const NAMED: usize = 20;

/// Files of one layer by what is special about them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Special {
    /// Block and character devices.
    pub devices: Named,
    /// Set-user-id and set-group-id programs.
    pub set_id: Named,
    /// Files with the attribute `security.capability`.
    pub capable: Named,
}

/// Some files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Named {
    /// How many there are.
    pub count: u64,
    /// The first of them, by their absolute paths.
    pub first: Vec<String>,
}

impl Named {
    fn add(&mut self, path: &[u8]) {
        self.count += 1;
        if self.first.len() < NAMED {
            self.first.push(format!("/{}", shown(path)));
        }
    }

    /// Adds the files of another layer.
    pub fn join(&mut self, other: &Self) {
        self.count += other.count;
        let room = NAMED.saturating_sub(self.first.len());
        self.first.extend(other.first.iter().take(room).cloned());
    }
}

impl Special {
    /// Adds the files of another layer.
    pub fn join(&mut self, other: &Self) {
        self.devices.join(&other.devices);
        self.set_id.join(&other.set_id);
        self.capable.join(&other.capable);
    }
}

/// What is special about a file.
#[derive(Debug, Clone, Copy)]
struct Marks {
    device: bool,
    set_id: bool,
    capable: bool,
}

/// Takes note of files while a layer is made, in which a later entry takes the place of an earlier one.
#[derive(Debug, Default)]
pub struct Notes(BTreeMap<Vec<u8>, Marks>);

impl Notes {
    /// Takes note of a file. A folder's set-group-id bit gives nobody privileges.
    pub fn add(&mut self, path: &[u8], metadata: &Metadata, kind: &Kind) {
        let marks = Marks {
            device: matches!(kind, Kind::CharDevice { .. } | Kind::BlockDevice { .. }),
            set_id: matches!(kind, Kind::File { .. }) && metadata.mode & 0o6000 != 0,
            capable: metadata.xattrs.contains_key(b"security.capability".as_slice()),
        };
        if marks.device || marks.set_id || marks.capable {
            self.0.insert(path.to_vec(), marks);
        } else {
            self.0.remove(path);
        }
    }

    /// The special files among those that are still there.
    pub fn into_special(self, mut is_there: impl FnMut(&[u8]) -> bool) -> Special {
        let mut special = Special::default();
        for (path, marks) in self.0.iter().filter(|(path, _)| is_there(path)) {
            for (mark, named) in [
                (marks.device, &mut special.devices),
                (marks.set_id, &mut special.set_id),
                (marks.capable, &mut special.capable),
            ] {
                if mark {
                    named.add(path);
                }
            }
        }
        special
    }
}
