//! Which of QEMU's accelerators really works here.
//!
//! A machine can have `/dev/kvm` and hang every guest, so nothing but a guest can tell: the canary, a boot sector
//! that writes one byte to a debug port. What it finds is remembered until the host's kernel changes.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::qemu::{Accelerator, QEMU};
use crate::error::{Context, Result};
use crate::progress::say;
use crate::store::{Draft, Store};

/// A canary that has said nothing by then is dead: one that works needs a tenth of it.
const CANARY_TIMEOUT: Duration = Duration::from_secs(5);

/// The port of QEMU's isa-debug-exit, and the exit code that it makes of the canary's byte: `byte << 1 | 1`.
const CANARY_PORT: u8 = 0xf4;
const CANARY_BYTE: u8 = 0x10;
const CANARY_EXIT: i32 = 0x21;

/// The fastest accelerator that works.
pub fn choose(store: &Store) -> Result<Accelerator> {
    let possible = fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok()
        && fs::read_to_string("/proc/cpuinfo").is_ok_and(|info| has_virtualisation(&info));
    if !possible {
        return Ok(Accelerator::Tcg);
    }
    let host = fs::read_to_string("/proc/version").doing(|| "read `/proc/version`")?;
    let memory = store.accelerator_path();
    if let Some(answer) = fs::read_to_string(&memory).ok().and_then(|text| remembered(&text, &host)) {
        return Ok(answer);
    }
    say("finding out whether /dev/kvm works");
    let answer = if canary_sings(Accelerator::Kvm)? { Accelerator::Kvm } else { Accelerator::Tcg };
    let mut draft = Draft::begin(&memory)?;
    std::io::Write::write_all(&mut draft, format!("{}\n{host}", answer.as_str()).as_bytes())
        .doing(|| format!("write `{}`", memory.display()))?;
    draft.commit()?;
    Ok(answer)
}

/// Whether the processor says that it can run guests. Only x86 says so in this file.
fn has_virtualisation(cpuinfo: &str) -> bool {
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    flags.split_whitespace().any(|flag| flag == "vmx" || flag == "svm")
}

/// What was found out on this very host.
fn remembered(text: &str, host: &str) -> Option<Accelerator> {
    let (answer, found_on) = text.split_once('\n')?;
    let answer = [Accelerator::Kvm, Accelerator::Tcg].into_iter().find(|known| known.as_str() == answer)?;
    (found_on == host).then_some(answer)
}

/// A sector that a BIOS loads and jumps to: `mov dx, port; mov al, byte; out dx, al; hlt; jmp $`.
fn boot_sector() -> Vec<u8> {
    let mut sector = vec![0xba, CANARY_PORT, 0x00, 0xb0, CANARY_BYTE, 0xee, 0xf4, 0xeb, 0xfe];
    sector.resize(510, 0);
    sector.extend([0x55, 0xaa]);
    sector
}

/// Whether a guest runs under this accelerator.
fn canary_sings(accelerator: Accelerator) -> Result<bool> {
    let folder = tempfile::tempdir().doing(|| "make a temporary folder")?;
    let disk = folder.path().join("canary.img");
    fs::write(&disk, boot_sector()).doing(|| format!("write `{}`", disk.display()))?;
    let mut qemu = Command::new(QEMU.program);
    qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-machine", "pc", "-m", "32"])
        .args(["-accel", accelerator.as_str(), "-boot", "a"])
        .arg("-drive")
        .arg(super::qemu::drive(&disk))
        .args(["-device", &format!("isa-debug-exit,iobase={CANARY_PORT:#x},iosize=4")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let child = qemu.spawn().map_err(|cause| QEMU.cannot_start(&cause))?;
    Ok(exit_code_within(child, CANARY_TIMEOUT)? == Some(CANARY_EXIT))
}

/// The exit code, or `None` when the process had to be killed.
fn exit_code_within(mut child: Child, timeout: Duration) -> Result<Option<i32>> {
    let deadline = Instant::now() + timeout;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().doing(|| "wait for the canary guest")? {
            return Ok(status.code());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().doing(|| "end the canary guest")?;
    child.wait().doing(|| "wait for the canary guest")?;
    Ok(None)
}

/// Whether there is a QEMU to ask.
#[cfg(test)]
fn qemu_is_installed() -> bool {
    Command::new(QEMU.program)
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_canary_sings_where_guests_run() {
        if qemu_is_installed() {
            assert!(canary_sings(Accelerator::Tcg).unwrap());
        } else {
            eprintln!("skipped: {} is not installed", QEMU.program);
        }
    }

    #[test]
    fn a_processor_without_vmx_and_svm_runs_no_guests() {
        assert!(has_virtualisation("model name\t: x\nflags\t\t: fpu vmx sse\n"));
        assert!(has_virtualisation("flags\t\t: fpu svm\n"));
        assert!(!has_virtualisation("flags\t\t: fpu vmx_flags sse\n"));
        assert!(!has_virtualisation(""));
    }

    #[test]
    fn an_answer_is_remembered_for_the_host_that_it_was_found_on() {
        assert_eq!(remembered("tcg\nLinux 6.1\n", "Linux 6.1\n"), Some(Accelerator::Tcg));
        assert_eq!(remembered("kvm\nLinux 6.1\n", "Linux 6.12\n"), None);
        assert_eq!(remembered("xen\nLinux 6.1\n", "Linux 6.1\n"), None);
    }
}
