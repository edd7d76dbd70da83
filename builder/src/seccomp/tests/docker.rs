//! Profiles in Docker's format: what they mean, and what is said of those that mean nothing.

use super::*;

const FACTS: Facts = Facts { capabilities: 1, kernel: Some((6, 1)) };

/// The verdict of a profile that has these entries, by default EPERM.
fn verdict(entries: &str, facts: Facts, call: &Call) -> u32 {
    let text = format!(r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{entries}]}}"#);
    let profile = Profile::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{error}: {text}"));
    let policy = profile.policy(facts).unwrap_or_else(|error| panic!("{error}: {text}"));
    run(&program::compile(&policy), call).0
}

#[test]
fn entries_decide_about_calls_by_name_and_arguments() {
    let allow = |rest: &str| format!(r#"{{"names":["socket","chown32"],"action":"SCMP_ACT_ALLOW"{rest}}}"#);
    let argument = |op: &str, value: u64, two: u64| {
        allow(&format!(r#","args":[{{"index":0,"value":{value},"valueTwo":{two},"op":"SCMP_CMP_{op}"}}]"#))
    };
    let denied = errno(EPERM);
    let wide = 0x1_0000_0005;
    let refuse_above_5 = r#"{"names":["socket"],"action":"SCMP_ACT_ERRNO","errnoRet":7,
        "args":[{"index":0,"value":5,"op":"SCMP_CMP_GT"}]}"#;
    for (entries, value, expected) in [
        (allow(""), 3, ALLOWED),
        (String::new(), 3, denied),
        (r#"{"name":"socket","action":"SCMP_ACT_ERRNO","errnoRet":7}"#.to_owned(), 3, errno(7)),
        (r#"{"names":["socket"],"action":"SCMP_ACT_KILL_PROCESS","comment":"no"}"#.to_owned(), 3, KILLED),
        (r#"{"names":["socket"],"action":"SCMP_ACT_KILL"}"#.to_owned(), 3, 0),
        (argument("EQ", 5, 0), 5, ALLOWED),
        // Docker compares all of a register.
        (argument("EQ", 5, 0), wide, denied),
        (argument("NE", 5, 0), 5, denied),
        (argument("NE", 5, 0), wide, ALLOWED),
        (argument("LT", wide, 0), wide - 1, ALLOWED),
        (argument("LT", wide, 0), wide, denied),
        (argument("LE", wide, 0), wide, ALLOWED),
        (argument("LE", wide, 0), 0x2_0000_0000, denied),
        (argument("GE", wide, 0), wide, ALLOWED),
        (argument("GE", wide, 0), 7, denied),
        (argument("GT", wide, 0), wide, denied),
        (argument("GT", wide, 0), 0x2_0000_0000, ALLOWED),
        (argument("MASKED_EQ", 6, 4), 13, ALLOWED),
        (argument("MASKED_EQ", 6, 4), 14, denied),
        // Where several fit, the strictest wins, in whatever order; of those without conditions, the first.
        (format!("{},{}", argument("GT", 3, 0), refuse_above_5), 7, errno(7)),
        (format!("{},{}", refuse_above_5, argument("GT", 3, 0)), 7, errno(7)),
        (format!("{},{}", refuse_above_5, argument("GT", 3, 0)), 4, ALLOWED),
        (format!("{},{}", allow(""), r#"{"names":["socket"],"action":"SCMP_ACT_KILL"}"#), 6, ALLOWED),
        // Without conditions wins, wherever it stands; what says no more than the default says nothing.
        (format!("{},{}", argument("EQ", 5, 0), allow("")), 6, ALLOWED),
        (format!("{},{}", allow(""), r#"{"names":["socket"],"action":"SCMP_ACT_ERRNO"}"#), 6, ALLOWED),
    ] {
        assert_eq!(
            verdict(&entries, FACTS, &native("socket", &[value])),
            expected,
            "{entries} of {value:#x}"
        );
    }
}

#[test]
fn conditions_on_several_arguments_all_hold_and_on_one_any() {
    let entry = |arguments: [(u32, u64); 2]| {
        let [a, b] = arguments
            .map(|(index, value)| format!(r#"{{"index":{index},"value":{value},"op":"SCMP_CMP_EQ"}}"#));
        format!(r#"{{"names":["socket"],"action":"SCMP_ACT_ALLOW","args":[{a},{b}]}}"#)
    };
    let (both, either) = (entry([(0, 2), (1, 3)]), entry([(0, 2), (0, 3)]));
    let denied = errno(EPERM);
    for (entry, arguments, expected) in [
        (&both, [2, 3], ALLOWED),
        (&both, [2, 2], denied),
        (&both, [3, 3], denied),
        (&either, [2, 0], ALLOWED),
        (&either, [3, 0], ALLOWED),
        (&either, [4, 0], denied),
    ] {
        assert_eq!(verdict(entry, FACTS, &native("socket", &arguments)), expected, "{entry} {arguments:?}");
    }
}

#[test]
fn includes_and_excludes_look_at_the_container_and_the_kernel() {
    let denied = errno(EPERM);
    for (filter, expected) in [
        (r#""includes":{}"#, ALLOWED),
        (r#""includes":null,"excludes":{}"#, ALLOWED),
        (r#""includes":{"caps":["CAP_CHOWN"]}"#, ALLOWED),
        (r#""includes":{"caps":["CAP_CHOWN","CAP_SYS_ADMIN"]}"#, denied),
        (r#""excludes":{"caps":["CAP_SYS_ADMIN"]}"#, ALLOWED),
        (r#""excludes":{"caps":["CAP_CHOWN","CAP_SYS_ADMIN"]}"#, denied),
        (r#""includes":{"arches":["amd64","x86"]}"#, ALLOWED),
        (r#""includes":{"arches":["s390x"]}"#, denied),
        (r#""excludes":{"arches":["s390x"]}"#, ALLOWED),
        (r#""excludes":{"arches":["amd64"]}"#, denied),
        (r#""includes":{"minKernel":"6.1"}"#, ALLOWED),
        (r#""includes":{"minKernel":"6.2"}"#, denied),
        (r#""excludes":{"minKernel":"4.8"}"#, denied),
    ] {
        let entry = format!(r#"{{"names":["socket"],"action":"SCMP_ACT_ALLOW",{filter}}}"#);
        assert_eq!(verdict(&entry, FACTS, &native("socket", &[])), expected, "{entry}");
    }
}

#[test]
fn what_a_profile_does_not_know_is_missing_or_has_its_default() {
    let unknown = Call { number: 500, ..native("read", &[]) };
    assert_eq!(verdict("", FACTS, &unknown), errno(ENOSYS));
    for foreign in [Call { architecture: 0x4000_0003, ..unknown }, Call { number: 0x4000_0000, ..unknown }] {
        assert_eq!(verdict("", FACTS, &foreign), KILLED, "{foreign:?}");
    }
    let open = Profile::parse(br#"{"defaultAction":"SCMP_ACT_ALLOW"}"#).unwrap().policy(FACTS).unwrap();
    assert_eq!(run(&program::compile(&open), &unknown).0, ALLOWED);
}

#[test]
fn a_profile_that_cannot_be_meant_is_one_clear_error() {
    let with = |rest: &str| format!(r#"{{"defaultAction":"SCMP_ACT_ERRNO",{rest}}}"#);
    let entry = |rest: &str| with(&format!(r#""syscalls":[{{{rest}}}]"#));
    let allow = |rest: &str| entry(&format!(r#""names":["socket"],"action":"SCMP_ACT_ALLOW",{rest}"#));
    for (text, said) in [
        (
            "{".to_owned(),
            "it is no seccomp profile of Docker's: EOF while parsing an object at line 1 column 1",
        ),
        (
            "{}".to_owned(),
            "it is no seccomp profile of Docker's: missing field `defaultAction` at line 1 column 2",
        ),
        (with(r#""sysacls":[]"#), "unknown field `sysacls`, expected one of"),
        (
            with(r#""flags":["SECCOMP_FILTER_FLAG_TSYNC"]"#),
            "the flag `SECCOMP_FILTER_FLAG_TSYNC` is not supported",
        ),
        (with(r#""architectures":["SCMP_ARCH_AARCH64"]"#), "it is not for SCMP_ARCH_X86_64, the machine's"),
        (with(r#""defaultErrno":"EPERM""#), "defaultAction: `EPERM` is an error by name: give its number as"),
        (
            entry(r#""names":["opne","read","nothing_like_it"],"action":"SCMP_ACT_ALLOW""#),
            "there are no system calls `nothing_like_it`, `opne` (did you mean `open`?)",
        ),
        (entry(r#""action":"SCMP_ACT_ALLOW""#), "syscalls[0]: an entry has either `names` or `name`"),
        (entry(r#""names":["read"],"action":"SCMP_ACT_ALOW""#), "unknown variant `SCMP_ACT_ALOW`"),
        (
            entry(r#""names":["read"],"action":"SCMP_ACT_NOTIFY""#),
            "syscalls[0]: SCMP_ACT_NOTIFY needs a supervisor",
        ),
        (entry(r#""names":["read"],"action":"SCMP_ACT_ERRNO","errnoRet":4096"#), "4096 is no error number"),
        (allow(r#""args":[{"index":6,"value":0,"op":"SCMP_CMP_EQ"}]"#), "has the arguments 0 to 5, not 6"),
        (
            allow(r#""includes":{"caps":["CAP_SYS_ADMN"]}"#),
            "syscalls[0]: there is no capability `CAP_SYS_ADMN`",
        ),
        (allow(r#""includes":{"minKernel":"new"}"#), "syscalls[0]: `new` is no kernel release such as 5.10"),
    ] {
        let error = Profile::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(said), "{text}: {error}");
    }
}

#[test]
fn a_profile_that_starts_nothing_or_needs_to_know_more_is_refused() {
    let policy = |entries: &str, kernel| {
        let text = format!(r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{entries}]}}"#);
        let policy = Profile::parse(text.as_bytes()).unwrap().policy(Facts { kernel, ..FACTS });
        policy.and_then(startable).unwrap_err().to_string()
    };
    let allow = |name: &str, rest: &str| format!(r#"{{"names":["{name}"],"action":"SCMP_ACT_ALLOW"{rest}}}"#);
    assert_eq!(
        policy(&allow("read", ""), None),
        "it does not allow `execve`, without which no program starts"
    );
    assert_eq!(
        policy(&allow("read", r#","includes":{"minKernel":"4.8"}"#), None),
        "it asks for Linux 4.8, and the kernel's own release is not known"
    );
}

#[test]
fn no_damage_to_a_profile_makes_its_reader_panic() {
    let seed = br#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,"architectures":["SCMP_ARCH_X86_64"],
        "archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X32"]}],"flags":null,
        "syscalls":[{"names":["execve","read","chown32"],"action":"SCMP_ACT_ALLOW","comment":""},
        {"name":"socket","action":"SCMP_ACT_ERRNO","errnoRet":97,"args":[
        {"index":0,"value":18446744073709551615,"valueTwo":4,"op":"SCMP_CMP_MASKED_EQ"},
        {"index":5,"value":4294967296,"op":"SCMP_CMP_LT"}],"includes":{"caps":["CAP_CHOWN"],"arches":["amd64"],
        "minKernel":"4.8"},"excludes":{"caps":["CAP_SYS_ADMIN"]}}]}"#;
    crate::mutation::feed("seccomp", &[seed.to_vec()]);
}
