//! The keys of supervision as they are written.

use crate::config::Table;
use crate::config::document::{Node, Value};
use crate::config::limits::Decimal;
use crate::config::raw::{At, Fields, FromValue};

/// All of them.
#[derive(Debug, Default)]
pub struct RawSupervision {
    pub depends_on: Vec<RawEdge>,
    pub wait_for: Vec<RawWait>,
    pub ready: Option<RawReady>,
    pub health: Option<At<RawHealth>>,
    pub watchdog: Option<At<String>>,
    pub restart: Option<At<String>>,
    pub prevented_by: Option<At<Vec<At<u32>>>>,
    pub backoff: Option<RawBackoff>,
    pub give_up: Option<At<RawGiveUp>>,
    pub on_failure: Option<At<String>>,
    pub timeout: Option<At<String>>,
}

#[derive(Debug)]
pub struct RawEdge {
    pub service: At<String>,
    pub condition: Option<At<String>>,
    pub on_failure: Option<At<String>>,
    pub restart_with: Option<At<bool>>,
}

#[derive(Debug)]
pub enum RawWait {
    Word(At<String>),
    Table(At<RawWaitTable>),
}

#[derive(Debug)]
pub struct RawWaitTable {
    pub network: Option<At<bool>>,
    pub clock: Option<At<bool>>,
    pub path: Option<At<String>>,
    pub timeout: Option<At<String>>,
    pub on_failure: Option<At<String>>,
}

#[derive(Debug)]
pub enum RawReady {
    Word(At<String>),
    Table(At<RawReadyTable>),
}

#[derive(Debug)]
pub struct RawReadyTable {
    pub tcp: Option<At<u32>>,
    pub http: Option<At<String>>,
    pub fd: Option<At<u32>>,
    pub notify: Option<At<bool>>,
    pub healthy: Option<At<bool>>,
    pub timeout: Option<At<String>>,
}

#[derive(Debug)]
pub struct RawHealth {
    pub test: Option<At<Test>>,
    pub tcp: Option<At<u32>>,
    pub http: Option<At<String>>,
    pub disable: Option<At<bool>>,
    pub interval: Option<At<String>>,
    pub timeout: Option<At<String>>,
    pub retries: Option<At<u32>>,
    pub start_period: Option<At<String>>,
    pub start_interval: Option<At<String>>,
    pub on_unhealthy: Option<At<String>>,
}

#[derive(Debug)]
pub struct RawBackoff {
    pub first: Option<At<String>>,
    pub factor: Option<At<u32>>,
    pub cap: Option<At<String>>,
    pub jitter: Option<At<Decimal>>,
    pub reset: Option<At<String>>,
}

#[derive(Debug)]
pub struct RawGiveUp {
    pub after: Option<At<u32>>,
    pub within: Option<At<String>>,
    pub then: Option<At<String>>,
}

/// Compose's `test`: a list that begins with how it is meant, or a line for a shell.
#[derive(Debug, Clone, PartialEq)]
pub struct Test(pub Vec<String>);

impl FromValue for Test {
    const EXPECTED: &'static str = "a list such as [\"CMD\", \"/bin/check\"], or a line for a shell";
    fn from_value(value: Value) -> Option<Self> {
        match value {
            Value::Text(line) => Some(Self(vec!["CMD-SHELL".to_owned(), line])),
            value => {
                let words = Vec::<At<String>>::from_value(value)?;
                Some(Self(words.into_iter().map(|word| word.value).collect()))
            }
        }
    }
}

impl FromValue for Vec<At<u32>> {
    const EXPECTED: &'static str = "a list of numbers such as [125]";
    fn from_value(value: Value) -> Option<Self> {
        let Value::List(nodes) = value else { return None };
        nodes
            .into_iter()
            .map(|node| Some(At { value: u32::from_value(node.value)?, span: node.span }))
            .collect()
    }
}

impl RawSupervision {
    pub fn read(table: Table, fields: &mut Fields<'_>) -> Self {
        let depends_on =
            fields.node("depends-on").map_or_else(Vec::new, |node| RawEdge::read_all(node, fields));
        let wait_for = fields.node("wait-for").map_or_else(Vec::new, |node| RawWait::read_all(node, fields));
        if table == Table::Shutdown {
            return Self { depends_on, wait_for, timeout: fields.take("timeout"), ..Self::default() };
        }
        let is_oneshot = table == Table::Oneshot;
        Self {
            depends_on,
            wait_for,
            ready: if is_oneshot {
                None
            } else {
                fields.node("ready").map(|node| RawReady::read(node, fields))
            },
            health: if is_oneshot { None } else { fields.table_at("healthcheck", RawHealth::read) },
            watchdog: if is_oneshot { None } else { fields.take("watchdog") },
            restart: fields.take("restart"),
            prevented_by: fields.take("restart-prevent-exit-status"),
            backoff: fields.table("backoff", RawBackoff::read),
            give_up: fields.table_at("give-up", RawGiveUp::read),
            on_failure: if is_oneshot { fields.take("on-failure") } else { None },
            timeout: None,
        }
    }
}

impl RawEdge {
    fn read_all(node: Node, fields: &mut Fields<'_>) -> Vec<Self> {
        let plain = |service| Self { service, condition: None, on_failure: None, restart_with: None };
        const EXPECTED: &str = "a table such as { db = \"ready\" }, or a list of services";
        let table = match node.value {
            Value::List(_) => {
                let Some(names) = Vec::<At<String>>::from_value(node.value.clone()) else {
                    fields.wrong_type("depends-on", EXPECTED, &node);
                    return Vec::new();
                };
                return names.into_iter().map(plain).collect();
            }
            Value::Table(table) => table,
            _ => {
                fields.wrong_type("depends-on", EXPECTED, &node);
                return Vec::new();
            }
        };
        let mut edges = Vec::new();
        for entry in table.0 {
            let path = format!("depends-on.{}", entry.key);
            let service = At { value: entry.key, span: entry.key_span };
            match entry.node.value {
                Value::Text(condition) => {
                    let condition = Some(At { value: condition, span: entry.node.span });
                    edges.push(Self { condition, ..plain(service) });
                }
                Value::Table(table) => edges.push(fields.inner(&path, table, |fields| Self {
                    service,
                    condition: fields.take("condition"),
                    on_failure: fields.take("on-failure"),
                    restart_with: fields.take("restart-with"),
                })),
                _ => fields.wrong_type(&path, "a condition such as \"ready\", or a table", &entry.node),
            }
        }
        edges
    }
}

impl RawWait {
    fn read_all(node: Node, fields: &mut Fields<'_>) -> Vec<Self> {
        const EXPECTED: &str = "a list such as [\"network\", \"/dev/vda\"]";
        let Value::List(nodes) = node.value else {
            fields.wrong_type("wait-for", EXPECTED, &node);
            return Vec::new();
        };
        let mut waits = Vec::new();
        for (index, node) in nodes.into_iter().enumerate() {
            let path = format!("wait-for[{index}]");
            match node.value {
                Value::Text(value) => waits.push(Self::Word(At { value, span: node.span })),
                Value::Table(table) => {
                    let read = |fields: &mut Fields<'_>| RawWaitTable {
                        network: fields.take("network"),
                        clock: fields.take("clock"),
                        path: fields.take("path"),
                        timeout: fields.take("timeout"),
                        on_failure: fields.take("on-failure"),
                    };
                    waits.push(Self::Table(At { value: fields.inner(&path, table, read), span: node.span }));
                }
                _ => fields.wrong_type(&path, "\"network\", \"clock\", a path, or a table", &node),
            }
        }
        waits
    }
}

impl RawReady {
    fn read(node: Node, fields: &mut Fields<'_>) -> Self {
        let span = node.span.clone();
        let read = |fields: &mut Fields<'_>| RawReadyTable {
            tcp: fields.take("tcp"),
            http: fields.take("http"),
            fd: fields.take("fd"),
            notify: fields.take("notify"),
            healthy: fields.take("healthy"),
            timeout: fields.take("timeout"),
        };
        match node.value {
            Value::Text(value) => Self::Word(At { value, span }),
            Value::Table(table) => Self::Table(At { value: fields.inner("ready", table, read), span }),
            _ => {
                fields.wrong_type("ready", "\"notify\", or a table such as { tcp = 5432 }", &node);
                Self::Word(At { value: "started".to_owned(), span })
            }
        }
    }
}

impl RawHealth {
    fn read(fields: &mut Fields<'_>) -> Self {
        Self {
            test: fields.take("test"),
            tcp: fields.take("tcp"),
            http: fields.take("http"),
            disable: fields.take("disable"),
            interval: fields.take("interval"),
            timeout: fields.take("timeout"),
            retries: fields.take("retries"),
            start_period: fields.take("start-period"),
            start_interval: fields.take("start-interval"),
            on_unhealthy: fields.take("on-unhealthy"),
        }
    }
}

impl RawBackoff {
    fn read(fields: &mut Fields<'_>) -> Self {
        Self {
            first: fields.take("first"),
            factor: fields.take("factor"),
            cap: fields.take("cap"),
            jitter: fields.take("jitter"),
            reset: fields.take("reset"),
        }
    }
}

impl RawGiveUp {
    fn read(fields: &mut Fields<'_>) -> Self {
        Self { after: fields.take("after"), within: fields.take("within"), then: fields.take("then") }
    }
}
