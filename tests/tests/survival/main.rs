//! What a machine survives: faults that are done to it by somebody inside who may do everything, each judged by the oracle
//! (`tests::oracle`). Short here; `cargo xtask soak` runs the long forms.

#![expect(clippy::unwrap_used, reason = "a failure here is the failure of a test")]

mod chaos;
mod clock;
mod many;
mod neighbours;
mod stages;
mod storms;
mod stuck;
