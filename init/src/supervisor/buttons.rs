//! The machine's power button. ACPI reports it as a key of an input device (modules `button` and `evdev`).

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::libc;

/// What ACPI calls it, whether it is a device of its own or a bit in a register.
const NAME: &str = "Power Button";
/// `EV_KEY` and `KEY_POWER` of linux/input-event-codes.h.
const KEY_EVENT: u16 = 1;
const KEY_POWER: u16 = 116;
const PRESSED: i32 = 1;

/// One input device that is a power button.
pub struct Button(File);

impl Button {
    /// Every power button that the machine has: often one, sometimes two, in a virtual machine perhaps none.
    pub fn find() -> Vec<Self> {
        let Ok(devices) = fs::read_dir("/sys/class/input") else { return Vec::new() };
        devices
            .flatten()
            .filter(|device| {
                fs::read_to_string(device.path().join("device/name"))
                    .is_ok_and(|name| name.trim_end() == NAME)
            })
            .filter_map(|device| {
                let node = Path::new("/dev/input").join(device.file_name());
                OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(node).ok().map(Self)
            })
            .collect()
    }

    /// To wait for.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Reads what happened to it, and says whether it was pressed. An error means that the device is gone.
    pub fn was_pressed(&mut self) -> std::io::Result<bool> {
        let mut events = [0; 16 * EVENT_SIZE];
        let length = self.0.read(&mut events)?;
        Ok(is_press(events.get(..length).unwrap_or_default()))
    }
}

/// `struct input_event` of a 64-bit kernel: a time of 16 bytes, then type, code and value.
const EVENT_SIZE: usize = 24;

fn is_press(events: &[u8]) -> bool {
    let (events, _) = events.as_chunks::<EVENT_SIZE>();
    events.iter().any(|event| {
        let [.., k0, k1, c0, c1, v0, v1, v2, v3] = *event;
        u16::from_ne_bytes([k0, k1]) == KEY_EVENT
            && u16::from_ne_bytes([c0, c1]) == KEY_POWER
            && i32::from_ne_bytes([v0, v1, v2, v3]) == PRESSED
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: u16, code: u16, value: i32) -> Vec<u8> {
        [&[0; 16], &kind.to_ne_bytes()[..], &code.to_ne_bytes(), &value.to_ne_bytes()].concat()
    }

    #[test]
    fn only_pressing_the_power_key_counts() {
        for (kind, code, value, counts) in
            [(1, 116, 1, true), (1, 116, 0, false), (1, 30, 1, false), (0, 116, 1, false)]
        {
            let stream = [event(0, 0, 0), event(kind, code, value)].concat();
            assert_eq!(is_press(&stream), counts, "{kind} {code} {value}");
        }
        assert!(!is_press(&[1; 23]));
    }
}
