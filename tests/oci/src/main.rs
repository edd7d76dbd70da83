//! OCI's runtime command line over the container code of Coracle's PID 1. For tests only: see docs/oci.md.

#![no_main]

use std::ffi::c_int;

// Not `fn main`: Rust's start-up code ignores SIGPIPE, and a container would inherit that.
init::entry!(command);

fn command() -> c_int {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match oci::perform(&words) {
        Ok(code) => code,
        Err(sentence) => {
            eprintln!("error: {sentence}");
            1
        }
    }
}
