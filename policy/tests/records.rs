//! Records of the kernel side held against the lines.

use ringfence_abi::{
    ALL, Ancestor, Class, EVENT_ANCESTORS, EVENT_ARGS, EVENT_PATH, Event, EventHeader, Facet, NONE, Op, Tier, Vector,
    done, flag,
};
use ringfence_policy::{Catalogue, Disagreement, Observed, Tables, Verdict, compare, compile, confirm};

fn tables() -> Tables {
    compile(Catalogue::builtin().rules()).expect("the catalogue compiles")
}

fn record(op: Op, flags: u32, path: &str, exe: &str, args: &[u8]) -> Event {
    fn padded<const N: usize>(text: &[u8]) -> [u8; N] {
        std::array::from_fn(|i| text.get(i).copied().unwrap_or(0))
    }
    let length = |bytes: usize| u16::try_from(bytes).expect("fits");
    let header = EventHeader {
        begun_at: 1,
        at: 1,
        mitigated_at: 0,
        lines: NONE,
        start: 1,
        cgroup: 1,
        number: 0,
        address: [0; 16],
        flags,
        slot: 1,
        generation: 1,
        pid: 1,
        tid: 1,
        uid: 0,
        gid: 0,
        target_pid: 0,
        port: 0,
        protocol: 0,
        path_len: length(path.len()),
        exe_len: length(exe.len()),
        args_len: length(args.len()),
        class: op.class() as u8,
        op: op as u8,
        tier: Tier::Tracepoint as u8,
        done: 0,
        family: 0,
        socket_type: 0,
        comm: padded(exe.rsplit('/').next().unwrap_or_default().as_bytes()),
        ancestors: [Ancestor::default(); EVENT_ANCESTORS],
    };
    Event {
        header,
        path: padded::<EVENT_PATH>(path.as_bytes()),
        exe: padded::<EVENT_PATH>(exe.as_bytes()),
        args: padded::<EVENT_ARGS>(args),
    }
}

fn lines_of(tables: &Tables, class: Class, rule: &str) -> Vec<usize> {
    let lines = tables.lines(class).iter().enumerate();
    lines.filter(|(_, of)| of.rule.id.to_string() == rule).map(|(number, _)| number).collect()
}

fn set(numbers: &[usize]) -> Vector {
    let mut vector = NONE;
    for number in numbers {
        vector[number / 64] |= 1 << (number % 64);
    }
    vector
}

#[test]
fn a_true_answer_is_accepted_and_false_ones_are_not() {
    let tables = tables();
    let mut event = record(Op::Ptrace, flag::OTHER_PROCESS, "", "/usr/bin/gdb", b"gdb\0");
    event.header.number = 16;
    let [line] = lines_of(&tables, Class::Process, "RF-409")[..] else { panic!("RF-409 has one line") };
    event.header.lines = set(&[line]);
    assert_eq!(compare(&tables, &ALL, &event), Ok(()));

    event.header.lines = NONE;
    let rule = "RF-409".parse().unwrap();
    assert_eq!(compare(&tables, &ALL, &event), Err(Disagreement::Missed { rule, line: 1 }));
    assert_eq!(compare(&tables, &NONE, &event), Ok(()), "what is not enabled is not missed");

    event.header.number = 0;
    event.header.lines = set(&[line]);
    assert_eq!(compare(&tables, &ALL, &event), Err(Disagreement::Invented { rule, line: 1 }));

    event.header.lines = set(&[255]);
    let lines = tables.lines(Class::Process).len();
    let expected = Disagreement::NoSuchLine { class: Class::Process, number: 255, lines };
    assert_eq!(compare(&tables, &ALL, &event), Err(expected));
}

/// Whether `dpkg` is among the ancestors is not in the record: either answer may be true.
#[test]
fn what_a_record_does_not_say_is_not_held_against_the_kernel() {
    let tables = tables();
    let mut event = record(Op::Open, flag::WRITE | flag::REGULAR, "/usr/bin/x", "/usr/bin/cp", b"cp\0x\0");
    let [line] = lines_of(&tables, Class::Open, "RF-212")[..] else { panic!("RF-212 has one line about opens") };
    for lines in [set(&[line]), NONE] {
        event.header.lines = lines;
        assert_eq!(compare(&tables, &ALL, &event), Ok(()));
    }
}

#[test]
fn a_started_program_has_every_name_it_was_called_by() {
    let names =
        |path: &str, args: &[u8]| Observed::from_event(&record(Op::Exec, 0, path, path, args)).unwrap().other_names;
    assert_eq!(names("/usr/bin/bash", b"/bin/sh\0-c\0x\0"), [b"bash".to_vec(), b"sh".to_vec()]);
    assert_eq!(names("/bin/busybox", b"busybox\0nc\0-e\0")[1..], [b"busybox".to_vec(), b"nc".to_vec()]);
    assert_eq!(names("/bin/busybox", b"cat\0nc\0-e\0")[1..], [b"cat".to_vec()], "an argument of an applet");
    assert_eq!(names("/bin/busybox", b"-nc\0-e\0")[1..], [b"nc".to_vec()], "as a login shell");

    let observed =
        Observed::from_event(&record(Op::Exec, 0, "/bin/busybox", "/bin/busybox", b"busybox\0nc\0-e\0sh\0")).unwrap();
    let rule = Catalogue::builtin().find("RF-107").unwrap();
    assert_eq!(rule.lines[0].verdict(&observed), Verdict::Yes);
}

#[test]
fn what_was_cut_or_comes_later_is_unknown() {
    let unknown = |event: &Event| Observed::from_event(event).unwrap().unknown;
    let mut event = record(Op::Exec, flag::ARGS_TRUNCATED | flag::PATH_TRUNCATED, "/a", "/a", b"a\0");
    assert!(unknown(&event).is_superset(&[Facet::Arg, Facet::ObjectPath, Facet::ObjectName].into()));
    event.header.flags = 0;
    assert!(unknown(&event).is_disjoint(&[Facet::Arg, Facet::ObjectPath, Facet::ObjectName].into()));
    // Before the program is in place its arguments are the old program's.
    event.header.tier = Tier::Lsm as u8;
    let early = Observed::from_event(&event).unwrap();
    assert!(early.unknown.contains(&Facet::Arg) && early.args.is_empty());
}

/// Arguments of a program that are longer than the kernel looks at, with `words` at their end.
fn padded_arguments(first: &str, words: &str) -> Vec<u8> {
    format!("{first}\0{}\0{words}\0", "x".repeat(EVENT_ARGS)).into_bytes()
}

#[test]
fn the_rest_of_the_arguments_confirms_a_candidate_or_does_not() {
    let tables = tables();
    let [miner] = lines_of(&tables, Class::Exec, "RF-802")[..] else { panic!("RF-802 has one line") };
    let candidate = |args: &[u8]| {
        let mut event = record(Op::Exec, flag::ARGS_TRUNCATED, "/opt/tool", "/opt/tool", &args[..EVENT_ARGS]);
        (event.header.done, event.header.lines) = (done::CANDIDATE, set(&[miner]));
        event
    };
    let args = padded_arguments("tool", "-o\0stratum+tcp://pool.example:3333");
    assert_eq!(confirm(&tables, &candidate(&args), &args), Ok(set(&[miner])));
    assert_eq!(compare(&tables, &ALL, &candidate(&args)), Ok(()), "the other lines are in another record");
    let args = padded_arguments("tool", "-o\0tcp://pool.example:3333");
    assert_eq!(confirm(&tables, &candidate(&args), &args), Ok(NONE));
}

/// `argv[0]` is a name of the program: one that is longer than the kernel looks at is not known.
#[test]
fn a_long_name_is_a_candidate_too() {
    let tables = tables();
    let netcat = lines_of(&tables, Class::Exec, "RF-107")[0];
    let long = "x".repeat(EVENT_ARGS);
    for (args, confirmed) in [
        (format!("/{long}/nc\0-e\0/bin/sh\0"), true),
        (format!("/{long}/cat\0-e\0/bin/sh\0"), false),
        (format!("busybox\0/{long}/nc\0-e\0"), false),
        (format!("busybox\0{}nc\0-e\0", "\0".repeat(EVENT_ARGS)), true),
    ] {
        let args = args.into_bytes();
        let mut event = record(Op::Exec, flag::ARGS_TRUNCATED, "/bin/busybox", "/bin/busybox", &args[..EVENT_ARGS]);
        assert!(Observed::from_event(&event).unwrap().unknown.contains(&Facet::ObjectName));
        (event.header.done, event.header.lines) = (done::CANDIDATE, set(&[netcat]));
        let expected = if confirmed { set(&[netcat]) } else { NONE };
        assert_eq!(confirm(&tables, &event, &args), Ok(expected), "{}", String::from_utf8_lossy(&args[EVENT_ARGS..]));
    }
}

#[test]
fn a_token_that_was_cut_is_none() {
    let args = [b"tool\0".as_slice(), &b"x".repeat(EVENT_ARGS - 10), b"\0nc\0a"].concat();
    let event = record(Op::Exec, flag::ARGS_TRUNCATED, "/opt/tool", "/opt/tool", &args);
    let observed = Observed::from_event(&event).unwrap();
    assert!(observed.args.ends_with(b"\0nc\0") && observed.unknown.contains(&Facet::Arg));
    assert!(!observed.unknown.contains(&Facet::ObjectName), "its name was whole");
}

#[test]
fn records_of_another_version_are_refused() {
    let mut event = record(Op::Open, 0, "/a", "/a", b"");
    event.header.op = 10;
    assert_eq!(
        Observed::from_event(&event).unwrap_err().to_string(),
        "operation 10 of class 1 is unknown to this version"
    );
    event.header.op = Op::Exec as u8;
    assert!(Observed::from_event(&event).is_err(), "an operation of another class");
}
