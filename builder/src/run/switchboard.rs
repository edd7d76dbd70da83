//! Who gets which answer: many clients, one line to the machine.
//!
//! Clients number their sessions as they like; on the machine's line each session has a number of its own. Nothing here
//! reads or writes: lines come in, and what is to be sent comes out.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use manifest::Name;
use manifest::control::{Answer, Ask, REQUEST_MAX, Request, Response};

/// A client, by the order in which they came.
pub type Client = u64;

/// By how many digits a number on the machine's line may be longer than the client's.
const NUMBER_MAX: usize = 20;

/// Something to be sent.
#[derive(Debug, Clone, PartialEq)]
pub enum Sent {
    /// To the machine.
    Machine(Request),
    /// To a client.
    Client(Client, Response),
}

/// A client's session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Session {
    client: Client,
    id: u64,
}

/// What goes on.
#[derive(Debug, Default)]
pub struct Switchboard {
    /// Whose session has which number on the machine's line, and the other way round.
    sessions: BTreeMap<u64, Session>,
    numbers: BTreeMap<Session, u64>,
    /// The last number that was given away.
    last: u64,
    /// The last greeting, which has no answer yet.
    greeting: Option<u64>,
    /// What the machine has answered to the last greeting.
    machine: Option<(u32, Name)>,
    /// Clients that have asked who is there, and do not know yet.
    curious: Vec<Session>,
}

impl Switchboard {
    /// A greeting for the machine, as long as it has not answered. Each one ends the sessions before it: nobody gets a
    /// session before the last one has its answer.
    pub fn greet(&mut self) -> Option<Request> {
        if self.machine.is_some() {
            return None;
        }
        self.last += 1;
        self.greeting = Some(self.last);
        Some(Request { id: self.last, ask: Ask::Hello })
    }

    /// A client has sent a line.
    pub fn client_says(&mut self, client: Client, line: &[u8]) -> Vec<Sent> {
        let Request { id, ask } = match serde_json::from_slice(line) {
            Ok(request) => request,
            Err(error) => {
                let why = format!("this is no request: {error}");
                return vec![Sent::Client(client, Response { id: 0, answer: Answer::Error { why } })];
            }
        };
        let session = Session { client, id };
        // The machine leaves out what is too long, and could not say whose it was.
        if line.len() + NUMBER_MAX > REQUEST_MAX {
            let mut sent = self.cancel(session..=session);
            sent.push(session.error(&format!("a request has less than {REQUEST_MAX} bytes")));
            return sent;
        }
        let number = self.numbers.get(&session).copied();
        let number = match ask {
            Ask::Hello => return self.introduce(session),
            // Of a session that is not there: it has ended while this was underway.
            Ask::Input { .. } | Ask::InputEnd | Ask::Resize(_) | Ask::Signal { .. } | Ask::Cancel => number,
            _ if self.machine.is_none() => {
                return vec![session.error("the machine has not answered yet: say hello first")];
            }
            _ if number.is_some() => {
                return vec![session.error("a session with this number goes on: choose another one")];
            }
            _ => {
                self.last += 1;
                self.sessions.insert(self.last, session);
                self.numbers.insert(session, self.last);
                Some(self.last)
            }
        };
        number.map(|id| Sent::Machine(Request { id, ask })).into_iter().collect()
    }

    /// Says who is there, and ends what the client has begun before it asked.
    fn introduce(&mut self, session: Session) -> Vec<Sent> {
        let mut sent = self.client_leaves(session.client);
        match &self.machine {
            Some((version, name)) => sent.extend(session.hello(*version, name)),
            None => self.curious.push(session),
        }
        sent
    }

    /// The machine has sent a line. Nothing when it cannot be understood.
    pub fn machine_says(&mut self, line: &[u8]) -> Option<Vec<Sent>> {
        let Response { id, answer } = serde_json::from_slice(line).ok()?;
        if let Answer::Hello { version, name } = answer {
            return Some(if self.greeting == Some(id) { self.welcome(version, name) } else { Vec::new() });
        }
        // Of a session that nobody waits for any more, or of a greeting.
        let Some(&session) = self.sessions.get(&id) else { return Some(Vec::new()) };
        if is_last(&answer) {
            self.forget(id);
        }
        Some(vec![Sent::Client(session.client, Response { id: session.id, answer })])
    }

    fn welcome(&mut self, version: u32, name: Name) -> Vec<Sent> {
        let curious = std::mem::take(&mut self.curious);
        let sent = curious.into_iter().flat_map(|session| session.hello(version, &name)).collect();
        self.machine = Some((version, name));
        sent
    }

    /// A client has gone: so do its sessions.
    pub fn client_leaves(&mut self, client: Client) -> Vec<Sent> {
        self.curious.retain(|session| session.client != client);
        self.cancel(Session { client, id: 0 }..=Session { client, id: u64::MAX })
    }

    /// Whether a client waits for nothing.
    pub fn is_idle(&self, client: Client) -> bool {
        let is_its = |session: &Session| session.client == client;
        !self.curious.iter().any(is_its) && !self.numbers.keys().any(is_its)
    }

    fn cancel(&mut self, sessions: RangeInclusive<Session>) -> Vec<Sent> {
        let numbers: Vec<u64> = self.numbers.range(sessions).map(|(_, &number)| number).collect();
        numbers.iter().for_each(|&number| self.forget(number));
        numbers.into_iter().map(|id| Sent::Machine(Request { id, ask: Ask::Cancel })).collect()
    }

    fn forget(&mut self, number: u64) {
        if let Some(session) = self.sessions.remove(&number) {
            self.numbers.remove(&session);
        }
    }
}

impl Session {
    fn error(self, why: &str) -> Sent {
        let answer = Answer::Error { why: why.to_owned() };
        Sent::Client(self.client, Response { id: self.id, answer })
    }

    fn hello(self, version: u32, name: &Name) -> [Sent; 2] {
        let answers = [Answer::Hello { version, name: name.clone() }, Answer::Done];
        answers.map(|answer| Sent::Client(self.client, Response { id: self.id, answer }))
    }
}

/// Whether a session ends with this answer.
fn is_last(answer: &Answer) -> bool {
    matches!(answer, Answer::Done | Answer::Exit { .. } | Answer::Error { .. })
}

#[cfg(test)]
mod tests {
    use manifest::control::VERSION;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn machine() -> Name {
        Name::try_from("shop".to_owned()).unwrap()
    }

    fn request(id: u64, ask: Ask) -> Vec<u8> {
        serde_json::to_vec(&Request { id, ask }).unwrap()
    }

    fn response(id: u64, answer: Answer) -> Vec<u8> {
        serde_json::to_vec(&Response { id, answer }).unwrap()
    }

    fn hello() -> Answer {
        Answer::Hello { version: VERSION, name: machine() }
    }

    /// What a client hears that has said hello.
    fn introduced(client: Client, id: u64) -> Vec<Sent> {
        [hello(), Answer::Done].map(|answer| Sent::Client(client, Response { id, answer })).to_vec()
    }

    /// A switchboard whose machine has answered; the next number is 2.
    fn greeted() -> Switchboard {
        let mut board = Switchboard::default();
        let greeting = board.greet().unwrap();
        assert_eq!(board.machine_says(&response(greeting.id, hello())), Some(vec![]));
        board
    }

    fn number(sent: &[Sent]) -> u64 {
        let [Sent::Machine(Request { id, .. })] = sent else { panic!("one request is expected: {sent:?}") };
        *id
    }

    #[test]
    fn two_clients_with_the_same_numbers_each_get_their_own_answers() {
        let mut board = greeted();
        let first = number(&board.client_says(1, &request(7, Ask::Status)));
        let second = number(&board.client_says(2, &request(7, Ask::Usage)));
        assert_ne!(first, second);
        for (number, client) in [(second, 2), (first, 1)] {
            let expected = Sent::Client(client, Response { id: 7, answer: Answer::Done });
            assert_eq!(board.machine_says(&response(number, Answer::Done)), Some(vec![expected]));
        }
        // Both have ended: the number is free for the client, and means nothing on the line.
        assert_eq!(board.machine_says(&response(first, Answer::Done)), Some(vec![]));
        number(&board.client_says(1, &request(7, Ask::Status)));
    }

    #[test]
    fn nobody_gets_a_session_before_the_last_greeting_has_its_answer() {
        let mut board = Switchboard::default();
        let (first, second) = (board.greet().unwrap().id, board.greet().unwrap().id);
        assert_eq!(board.client_says(1, &request(1, Ask::Hello)), []);
        assert!(matches!(&board.client_says(2, &request(4, Ask::Status))[..],
            [Sent::Client(2, Response { id: 4, answer: Answer::Error { why } })] if why.contains("not answered")));
        assert_eq!(board.machine_says(&response(first, hello())), Some(vec![]));
        assert!(!board.is_idle(1));
        assert_eq!(board.machine_says(&response(second, hello())), Some(introduced(1, 1)));
        assert!(board.is_idle(1));
        assert_eq!(board.greet(), None);
        assert_eq!(board.client_says(3, &request(9, Ask::Hello)), introduced(3, 9));
    }

    #[test]
    fn the_sessions_of_a_client_that_leaves_or_begins_anew_are_cancelled_and_no_others() {
        let mut board = greeted();
        let one = number(&board.client_says(1, &request(1, Ask::Status)));
        let two = number(&board.client_says(1, &request(2, Ask::Usage)));
        let other = number(&board.client_says(2, &request(1, Ask::Boot)));
        let cancel = |id| Sent::Machine(Request { id, ask: Ask::Cancel });
        assert_eq!(board.client_leaves(1), [cancel(one), cancel(two)]);
        assert_eq!(board.machine_says(&response(one, Answer::Done)), Some(vec![]));
        assert!(board.is_idle(1) && !board.is_idle(2));
        let mut sent = board.client_says(2, &request(5, Ask::Hello));
        assert_eq!(sent.remove(0), cancel(other));
        assert_eq!(sent, introduced(2, 5));
    }

    #[test]
    fn what_is_no_request_or_fits_nowhere_is_answered_and_goes_no_further() {
        let mut board = greeted();
        let number = number(&board.client_says(1, &request(1, Ask::Events { since: 0, follow: true })));
        let long = Ask::Input { data: vec![0; REQUEST_MAX] };
        for (line, id, why, cancelled) in [
            (b"{".to_vec(), 0, "this is no request", false),
            (request(1, Ask::Status), 1, "a session with this number goes on", false),
            (request(2, long.clone()), 2, "a request has less than 65536 bytes", false),
            (request(1, long), 1, "a request has less than 65536 bytes", true),
        ] {
            let mut sent = board.client_says(1, &line);
            let Some(Sent::Client(1, Response { id: to, answer: Answer::Error { why: said } })) = sent.pop()
            else {
                panic!("an error is expected");
            };
            assert!(to == id && said.starts_with(why), "{to}: {said}");
            let cancel = Sent::Machine(Request { id: number, ask: Ask::Cancel });
            assert_eq!(sent, if cancelled { vec![cancel] } else { vec![] });
        }
        assert_eq!(board.client_says(1, &request(1, Ask::InputEnd)), []);
        assert_eq!(board.machine_says(b"garbage"), None);
    }

    /// What a random life consists of.
    #[derive(Debug, Clone)]
    enum Act {
        Says(Client, u64, Ask),
        Leaves(Client),
        /// The machine says this of a session by its number on the line, whether there is one or not.
        Answers(u64, Answer),
    }

    fn acts() -> impl Strategy<Value = Act> {
        let ask = prop_oneof![
            Just(Ask::Status),
            Just(Ask::Usage),
            Just(Ask::InputEnd),
            Just(Ask::Cancel),
            Just(Ask::Hello)
        ];
        let answer = prop_oneof![Just(Answer::Started), Just(Answer::Done), Just(Answer::Exit { code: 1 })];
        prop_oneof![
            4 => (0..3_u64, 0..3_u64, ask).prop_map(|(client, id, ask)| Act::Says(client, id, ask)),
            1 => (0..3_u64).prop_map(Act::Leaves),
            4 => (0..20_u64, answer).prop_map(|(id, answer)| Act::Answers(id, answer)),
        ]
    }

    proptest! {
        /// A model that remembers who began which session on the line, and which of them still goes on.
        #[test]
        fn whatever_happens_answers_reach_whoever_asked_and_nobody_else(acts in vec(acts(), 0..60)) {
            let mut board = greeted();
            let mut going: BTreeMap<u64, (Client, u64)> = BTreeMap::new();
            let mut last = 1;
            for act in acts {
                let (asker, sent) = match &act {
                    Act::Says(client, id, ask) => (Some(*client), board.client_says(*client, &request(*id, ask.clone()))),
                    Act::Leaves(client) => (Some(*client), board.client_leaves(*client)),
                    Act::Answers(id, answer) => (None, board.machine_says(&response(*id, answer.clone())).unwrap()),
                };
                for one in sent {
                    match (one, asker) {
                        (Sent::Machine(Request { id, ask: Ask::Status | Ask::Usage }), Some(client)) => {
                            prop_assert!(id > last, "a number is used twice");
                            last = id;
                            let Act::Says(_, own, _) = &act else { panic!("nobody asked") };
                            prop_assert!(!going.values().any(|session| *session == (client, *own)));
                            going.insert(id, (client, *own));
                        }
                        (Sent::Machine(Request { id, ask }), Some(client)) => {
                            prop_assert_eq!(going[&id].0, client);
                            let goes_on = matches!((&act, ask), (Act::Says(_, _, Ask::Cancel | Ask::InputEnd), _));
                            if !goes_on {
                                going.remove(&id);
                            }
                        }
                        (Sent::Machine(request), None) => panic!("{request:?} comes from nobody"),
                        (Sent::Client(to, _), Some(client)) => prop_assert_eq!(to, client),
                        (Sent::Client(to, Response { id, .. }), None) => {
                            let Act::Answers(number, answer) = &act else { panic!("nobody answered") };
                            prop_assert_eq!(going[number], (to, id));
                            if *answer != Answer::Started {
                                going.remove(number);
                            }
                        }
                    }
                }
                for client in 0..3 {
                    prop_assert_eq!(board.is_idle(client), !going.values().any(|(other, _)| *other == client));
                }
            }
        }
    }
}
