//! The form in which catalogue files write lines.

use std::collections::{BTreeMap, BTreeSet};

use ringfence_abi::Facet;
use serde::Deserialize;

use super::{FlagTest, Line, LineError, Network, Pattern, Test, vocabulary};

/// One value, or a list of alternatives.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    fn into_vec(self) -> Vec<T> {
        match self {
            Self::One(value) => vec![value],
            Self::Many(values) => values,
        }
    }
}

/// A number, or the word for one.
#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrWord {
    Number(u64),
    Word(String),
}

type Texts = Option<OneOrMany<String>>;

/// A line as it is written; [`Line`] says what the keys mean.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    on: OneOrMany<String>,
    #[serde(default)]
    flags: Texts,
    path: Texts,
    not_path: Texts,
    name: Texts,
    not_name: Texts,
    exe: Texts,
    not_exe: Texts,
    exe_name: Texts,
    not_exe_name: Texts,
    parent: Texts,
    not_parent: Texts,
    parent_name: Texts,
    not_parent_name: Texts,
    ancestor: Texts,
    not_ancestor: Texts,
    arg: Texts,
    to: Texts,
    not_to: Texts,
    port: Option<OneOrMany<u16>>,
    not_port: Option<OneOrMany<u16>>,
    number: Option<OneOrMany<NumberOrWord>>,
    not_number: Option<OneOrMany<NumberOrWord>>,
    family: Texts,
    r#type: Texts,
}

fn values<T>(written: Option<OneOrMany<T>>) -> Vec<T> {
    written.map(OneOrMany::into_vec).unwrap_or_default()
}

fn patterns(written: Texts) -> Vec<Pattern> {
    values(written).iter().map(|text| Pattern::from(text.as_str())).collect()
}

fn words<T: Ord>(written: Texts, read: fn(&str) -> Result<T, LineError>) -> Result<BTreeSet<T>, LineError> {
    values(written).iter().map(|word| read(word)).collect()
}

fn networks(written: Texts) -> Result<Vec<Network>, LineError> {
    let read = |text: &String| {
        text.parse().map_err(|_| LineError::UnknownWord {
            what: "an address or an address range",
            value: text.clone(),
            nearest: None,
        })
    };
    values(written).iter().map(read).collect()
}

fn flags(written: Texts) -> Result<FlagTest, LineError> {
    let mut test = FlagTest::default();
    for word in values(written) {
        match word.strip_prefix('!') {
            Some(word) => test.refused |= vocabulary::flag_bit(word)?,
            None => test.required |= vocabulary::flag_bit(&word)?,
        }
    }
    Ok(test)
}

impl TryFrom<Written> for Line {
    type Error = LineError;

    fn try_from(written: Written) -> Result<Self, LineError> {
        let ops = words(Some(written.on), vocabulary::op)?;
        let texts = [
            (Facet::ObjectPath, written.path, written.not_path),
            (Facet::ObjectName, written.name, written.not_name),
            (Facet::ExePath, written.exe, written.not_exe),
            (Facet::ExeName, written.exe_name, written.not_exe_name),
            (Facet::ParentPath, written.parent, written.not_parent),
            (Facet::ParentName, written.parent_name, written.not_parent_name),
            (Facet::AncestorName, written.ancestor, None),
            (Facet::NoAncestorName, None, written.not_ancestor),
            (Facet::Arg, written.arg, None),
        ];
        let texts: BTreeMap<_, _> = texts
            .into_iter()
            .map(|(facet, any, none)| (facet, Test { any: patterns(any), none: patterns(none) }))
            .filter(|(_, test)| test.cares())
            .collect();
        let op = if ops.len() == 1 { ops.first().copied() } else { None };
        let numbers = |written| {
            let read = |number| match number {
                NumberOrWord::Number(number) => Ok(number),
                NumberOrWord::Word(word) => vocabulary::number(op, &word),
            };
            values(written).into_iter().map(read).collect::<Result<Vec<_>, _>>()
        };
        let line = Self {
            flags: flags(written.flags)?,
            texts,
            destination: Test { any: networks(written.to)?, none: networks(written.not_to)? },
            port: Test { any: values(written.port), none: values(written.not_port) },
            number: Test { any: numbers(written.number)?, none: numbers(written.not_number)? },
            families: words(written.family, vocabulary::family)?,
            socket_types: words(written.r#type, vocabulary::socket_type)?,
            ops,
        };
        line.check()?;
        Ok(line)
    }
}

impl<'de> Deserialize<'de> for Line {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Written::deserialize(deserializer)?.try_into().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use ringfence_abi::{Class, Op, flag};

    use super::*;

    fn line(text: &str) -> Result<Line, String> {
        serde_saphyr::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn reads_every_kind_of_key() {
        let text = "on: [connect, packet]\nto: [169.254.169.254, 'fd00:ec2::/64']\nnot_port: 53\nfamily: [inet, inet6]";
        let line = line(text).unwrap();
        assert_eq!(line.class(), Class::Network);
        assert_eq!(line.ops, BTreeSet::from([Op::Connect, Op::Packet]));
        assert_eq!(line.destination.any[0].bits(), 128);
        assert_eq!(line.destination.any[1].bits(), 64);
        assert_eq!(line.port.none, [53]);
        assert_eq!(line.families, BTreeSet::from([2, 10]));
    }

    #[test]
    fn reads_words_for_numbers() {
        assert_eq!(line("on: socket\ntype: [stream, raw]").unwrap().socket_types, BTreeSet::from([1, 3]));
        assert_eq!(line("on: ptrace\nnumber: [attach, 5]").unwrap().number.any, [16, 5]);
        assert_eq!(line("on: kill\nnot_number: term").unwrap().number.none, [15]);
    }

    #[test]
    fn reads_flags_and_patterns() {
        let line = line("on: exec\nflags: [drifted, '!entry']\npath: /dev/shm/*\nnot_ancestor: [dpkg, apt*]").unwrap();
        assert_eq!(line.flags, FlagTest { required: flag::DRIFTED, refused: flag::ENTRY });
        assert_eq!(line.texts[&Facet::ObjectPath].any, [Pattern::Prefix("/dev/shm/".into())]);
        assert_eq!(line.texts[&Facet::NoAncestorName].none.len(), 2);
    }

    #[test]
    fn refuses_what_cannot_work_and_says_why() {
        for (text, part) in [
            ("on: exec\nexe: /bin/sh", "'exe' cannot be asked of operation 'exec': the program started is its 'path'"),
            ("on: exec\nnot_exe_name: sh", "'not_exe_name' cannot be asked of operation 'exec'"),
            ("on: [exec, open]", "different classes"),
            ("on: exec\nflags: [tty, '!tty']", "flag 'tty' is both required and refused"),
            ("on: exec\nflags: drifte", "did you mean 'drifted'"),
            ("on: open\npath: etc/shadow", "paths are absolute"),
            ("on: open\npath: /etc/../shadow", "normalised"),
            ("on: open\npath: /etc/", "append '*'"),
            ("on: open\nname: '*'", "leave the key out"),
            ("on: open\nname: a/b", "one path component"),
            ("on: open\narg: a", "'arg' cannot be asked of operation 'open'"),
            ("on: exec\narg: a=b", "split at"),
            ("on: [connect, packet]\nexe: /bin/sh", "'exe' cannot be asked of operation 'packet'"),
            ("on: socket\nto: 1.2.3.4", "'to' cannot be asked of operation 'socket'"),
            ("on: connect\nto: 1.2.3.400", "'1.2.3.400' is not an address"),
            ("on: ptrace\nnumber: atach", "did you mean 'attach'"),
            ("on: ptrace\nfamily: inet", "'family' cannot be asked of operation 'ptrace'"),
            ("on: packet\ntype: raw", "'type' cannot be asked of operation 'packet'"),
            ("on: [exec, script]\nflags: drifted", "flag 'drifted' is never set for operation 'script'"),
            ("on: open\npaht: /etc/shadow", "paht"),
        ] {
            let error = line(text).expect_err(text);
            assert!(error.contains(part), "{text}\n{error}");
        }
        let long = "x".repeat(60);
        assert!(line(&format!("on: open\nname: {long}")).unwrap_err().contains("has 60 bytes; at most 59"));
        assert!(
            line(&format!("on: open\npath: /{}", "x".repeat(251))).unwrap_err().contains("has 252 bytes; at most 251")
        );
        assert!(
            line(&format!("on: open\npath: /{}*", "x".repeat(244))).unwrap_err().contains("has 245 bytes; at most 244")
        );
    }
}
