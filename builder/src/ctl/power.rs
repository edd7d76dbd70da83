//! `coracle ctl poweroff`, `reboot` and `halt`: the machine's end.

use std::time::{Duration, Instant};

use manifest::control::{Answer, Ask, MachineState, Power};

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
/// has halted, there comes one that is not about to end, or no answer any more: PID 1 gives them to its last moment.
fn wait(channel: &mut Channel, patience: Duration) -> Result<()> {
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
                Heard::Answer(_, Answer::Machine(machine)) if machine.state != MachineState::Stopping => {
                    return Ok(());
                }
                Heard::Answer(_, Answer::Error { why }) => return Err(Error::new(why)),
                Heard::Answer(..) => heard_at = Instant::now(),
                Heard::Nothing => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use manifest::control::Machine;

    use super::super::fake::{Fake, machine};
    use super::*;

    #[test]
    fn a_machine_has_ended_when_another_one_answers_or_nobody_does() {
        use MachineState::{Starting, Stopping};
        for states in [vec![Stopping, Stopping, Starting], vec![Starting], vec![Stopping]] {
            let count = states.len();
            let (sender, asked) = std::sync::mpsc::channel();
            let mut states = states.into_iter();
            let fake = Fake::machine(move |id, ask, say| {
                assert_eq!(ask, Ask::Status);
                sender.send(()).unwrap();
                if let Some(state) = states.next() {
                    say(id, Answer::Machine(Machine { state, ..machine() }));
                    say(id, Answer::Done);
                }
            });
            assert_eq!(wait(&mut fake.channel(), Duration::from_millis(1200)), Ok(()));
            assert!(asked.try_iter().count() >= count);
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
