//! How seccomp profiles are read when damaged inputs are fed to their reader.

use super::docker::Profile;
use super::{Facts, program};
use crate::fuzz::Reader;

/// The reader.
pub const READERS: &[Reader] = &[Reader { name: "seccomp", mend: |_| {}, read }];

fn read(input: &[u8]) {
    let facts = Facts { capabilities: 1, kernel: Some((6, 1)) };
    if let Ok(policy) = Profile::parse(input).and_then(|profile| profile.policy(facts)) {
        program::compile(&policy);
    }
}
