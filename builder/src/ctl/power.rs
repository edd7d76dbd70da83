//! `coracle ctl poweroff`, `reboot` and `halt`: the machine's end.

use std::time::{Duration, Instant};

use manifest::control::{Answer, Ask, Power};

use super::channel::{Channel, Heard, PATIENCE};
use crate::error::{Error, Result};

/// How often it is looked whether the machine is still there.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Orders the machine's end, and waits for it if wanted.
pub fn end(channel: &mut Channel, power: Power, waits: bool) -> Result<()> {
    channel.all(Ask::Power { power })?;
    if waits { wait(channel, PATIENCE) } else { Ok(()) }
}

/// Waits until the connection ends, as it does when QEMU ends. Where QEMU goes on, because the machine boots again or
/// has halted, its clock begins anew, or there are no answers any more: PID 1 gives them to its last moment.
fn wait(channel: &mut Channel, patience: Duration) -> Result<()> {
    let mut last_ns = 0;
    let mut heard_at = Instant::now();
    while heard_at.elapsed() < patience {
        // Fails when the connection has ended.
        if channel.begin(Ask::Status).is_err() {
            return Ok(());
        }
        let asked_at = Instant::now();
        while let Some(rest) = LOOK_AGAIN.checked_sub(asked_at.elapsed()) {
            match channel.hear(Some(rest)) {
                Heard::End => return Ok(()),
                Heard::Answer(_, Answer::Machine(machine)) if machine.now.monotonic_ns < last_ns => {
                    return Ok(());
                }
                Heard::Answer(_, Answer::Machine(machine)) => {
                    last_ns = machine.now.monotonic_ns;
                    heard_at = Instant::now();
                }
                Heard::Answer(_, Answer::Error { why }) => return Err(Error::new(why)),
                Heard::Answer(..) | Heard::Nothing => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use manifest::control::Machine;

    use super::super::fake::{Fake, at, machine};
    use super::*;

    #[test]
    fn a_machine_has_ended_when_its_clock_begins_anew_or_it_says_nothing_any_more() {
        for clocks in [vec![5_000, 5_500, 80], vec![5_000]] {
            let mut clocks = clocks.into_iter();
            let fake = Fake::machine(move |id, ask, say| match (ask, clocks.next()) {
                (Ask::Status, Some(clock)) => {
                    say(id, Answer::Machine(Machine { now: at(clock), ..machine() }));
                    say(id, Answer::Done);
                }
                (other, _) => assert_eq!(other, Ask::Status),
            });
            assert_eq!(wait(&mut fake.channel(), Duration::from_millis(1200)), Ok(()));
        }
    }

    #[test]
    fn a_machine_has_ended_with_its_connection() {
        let fake = Fake::machine(|id, ask, say| match ask {
            Ask::Power { power: Power::Off } => say(id, Answer::Done),
            _ => panic!("the fake machine ends here"),
        });
        assert_eq!(end(&mut fake.channel(), Power::Off, true), Ok(()));
    }
}
