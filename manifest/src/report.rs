//! What a machine reports about itself to whoever runs it: one JSON object per line on the virtio-serial port
//! [`PORT`], where the machine has one. `coracle run` reads it; nothing is ever read from the port.

use serde::{Deserialize, Serialize};

/// The name of the virtio-serial port.
pub const PORT: &str = "coracle.report";

/// One line of the report. Times are nanoseconds of the machine's monotonic clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum Report {
    /// All oneshots have completed and every service has been started.
    Ready {
        /// When init's first instruction ran.
        init_ns: u64,
        /// When the first container was cloned; equals `ready_ns` in a machine without services.
        first_start_ns: u64,
        /// When the last service had been started.
        ready_ns: u64,
    },
    /// The machine is going down, and everything it ran has ended.
    Exit {
        /// 0 for an ordinary power-off or reboot, else the code that stopped the boot.
        code: u8,
        /// When the stop began.
        stop_ns: u64,
        /// When the last container had ended and everything was unmounted.
        off_ns: u64,
    },
}
