//! Text of unknown origin, made safe to print.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// Text that came from the kernel or a container, escaped so that it can be printed and logged.
///
/// Holds no control character (C0, DEL, C1, and with them every ANSI sequence), no line or paragraph
/// separator, no invisible or bidirectional format character and no combining mark, so it can neither
/// break a line, drive a terminal nor pass for other text. Lossless: different bytes give different
/// text, and [`Escaped::unescape`] gives the bytes back.
///
/// | written | stands for |
/// |---|---|
/// | `\\` | a backslash |
/// | `\n` `\r` `\t` | line feed, carriage return, tab |
/// | `\x1b` | the byte: another ASCII control character, or not UTF-8 |
/// | `\u{202e}` | the character: everything else that is not plainly visible |
///
/// Copies share the text: all violations of a container say the same of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Escaped(Arc<str>);

/// Text that claims to be escaped and is not.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("text is not escaped: byte {offset} begins neither a visible character nor an escape sequence")]
pub struct Malformed {
    /// Where, in bytes from the beginning.
    pub offset: usize,
}

impl Escaped {
    /// Escapes bytes, which need not be UTF-8.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        // Nearly always all of it.
        let plain = bytes.iter().take_while(|byte| byte.is_ascii() && is_plain(char::from(**byte))).count();
        let (plain, rest) = bytes.split_at(plain);
        let plain = std::str::from_utf8(plain).expect("it is ASCII");
        if rest.is_empty() {
            return Self(plain.into());
        }
        let mut escaped = String::with_capacity(bytes.len());
        escaped.push_str(plain);
        for chunk in rest.utf8_chunks() {
            chunk.valid().chars().for_each(|character| push(&mut escaped, character));
            chunk.invalid().iter().for_each(|byte| push_byte(&mut escaped, *byte));
        }
        Self(escaped.into())
    }

    /// Takes text that is escaped already.
    pub fn parse(escaped: impl Into<Arc<str>>) -> Result<Self, Malformed> {
        let escaped = escaped.into();
        decode(&escaped)?;
        Ok(Self(escaped))
    }

    /// The escaped text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether there is no text at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes that were escaped.
    pub fn unescape(&self) -> Vec<u8> {
        decode(&self.0).expect("every constructor yields well-formed escapes")
    }
}

impl fmt::Display for Escaped {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(&self.0)
    }
}

impl From<&str> for Escaped {
    fn from(text: &str) -> Self {
        Self::from_bytes(text.as_bytes())
    }
}

impl From<&[u8]> for Escaped {
    fn from(bytes: &[u8]) -> Self {
        Self::from_bytes(bytes)
    }
}

impl From<String> for Escaped {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

impl PartialEq<str> for Escaped {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Escaped {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl Serialize for Escaped {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Escaped {
    /// Refuses text that is not escaped: what a peer sends reaches the terminal too.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// Makes a sentence safe to print that may hold [`Escaped`] parts already: as escaping does, but backslashes stay.
pub fn printable(sentence: &str) -> String {
    let mut printable = String::with_capacity(sentence.len());
    for character in sentence.chars() {
        match character {
            '\\' => printable.push(character),
            _ => push(&mut printable, character),
        }
    }
    printable
}

/// Whether a character stands for itself. Beyond ASCII the standard library decides what is visible:
/// it refuses every character of the categories Cc, Cf, Co, Cs, Cn, Zl, Zp and Zs, and combining marks.
fn is_plain(character: char) -> bool {
    match character {
        '\\' => false,
        ' '..='~' => true,
        '\0'..='\u{9f}' => false,
        _ => character.escape_debug().len() == 1,
    }
}

fn push(escaped: &mut String, character: char) {
    match character {
        '\\' => escaped.push_str("\\\\"),
        '\n' => escaped.push_str("\\n"),
        '\r' => escaped.push_str("\\r"),
        '\t' => escaped.push_str("\\t"),
        _ if is_plain(character) => escaped.push(character),
        '\0'..='\x7f' => push_byte(escaped, character as u8),
        _ => write!(escaped, "\\u{{{:x}}}", u32::from(character)).expect("writing to a string cannot fail"),
    }
}

fn push_byte(escaped: &mut String, byte: u8) {
    write!(escaped, "\\x{byte:02x}").expect("writing to a string cannot fail");
}

fn decode(escaped: &str) -> Result<Vec<u8>, Malformed> {
    let mut bytes = Vec::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some(character) = rest.chars().next() {
        let malformed = Malformed { offset: escaped.len() - rest.len() };
        let read = match character {
            '\\' => decode_escape(&rest[1..], &mut bytes).ok_or(malformed)? + 1,
            _ if is_plain(character) => {
                bytes.extend_from_slice(&rest.as_bytes()[..character.len_utf8()]);
                character.len_utf8()
            }
            _ => return Err(malformed),
        };
        rest = &rest[read..];
    }
    Ok(bytes)
}

/// Reads what follows a backslash; the number of bytes read.
fn decode_escape(rest: &str, bytes: &mut Vec<u8>) -> Option<usize> {
    let simple = |byte| Some((byte, 1));
    let (byte, read) = match *rest.as_bytes().first()? {
        b'\\' => simple(b'\\'),
        b'n' => simple(b'\n'),
        b'r' => simple(b'\r'),
        b't' => simple(b'\t'),
        b'x' => {
            let digits = rest.get(1..3).filter(|digits| is_hex(digits))?;
            Some((u8::from_str_radix(digits, 16).ok()?, 3))
        }
        b'u' => {
            let (digits, _) = rest.get(1..)?.strip_prefix('{')?.split_once('}')?;
            let character = char::from_u32(u32::from_str_radix(digits, 16).ok()?).filter(|_| is_hex(digits))?;
            bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            return Some(digits.len() + 3);
        }
        _ => None,
    }?;
    bytes.push(byte);
    Some(read)
}

/// Lower-case hexadecimal digits only: `from_str_radix` alone would also take a sign.
fn is_hex(digits: &str) -> bool {
    digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Told apart from `is_plain` on purpose: this is the promise, that is the implementation.
    fn is_dangerous(character: char) -> bool {
        character.is_control()
            || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
            || matches!(character, '\u{61c}' | '\u{ad}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
    }

    /// Bytes in which escape sequences, invalid UTF-8 and dangerous characters are frequent.
    fn hostile_bytes() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            any::<u8>().prop_map(|byte| vec![byte]),
            any::<char>().prop_map(|character| character.to_string().into_bytes()),
            prop::sample::select(vec![
                "\\",
                "\\x1b",
                "\\u{202e}",
                "\x1b[2J",
                "\u{85}",
                "\u{202e}",
                "\u{2028}",
                "e\u{301}"
            ])
            .prop_map(|text| text.as_bytes().to_vec()),
        ];
        prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn escaped_text_never_holds_a_dangerous_character(bytes in hostile_bytes()) {
            let escaped = Escaped::from_bytes(&bytes);
            prop_assert!(!escaped.as_str().chars().any(is_dangerous), "{escaped}");
        }

        #[test]
        fn escaping_loses_nothing(bytes in hostile_bytes()) {
            prop_assert_eq!(Escaped::from_bytes(&bytes).unescape(), bytes);
        }

        #[test]
        fn different_bytes_are_escaped_differently(one in hostile_bytes(), other in hostile_bytes()) {
            prop_assume!(one != other);
            prop_assert_ne!(Escaped::from_bytes(&one), Escaped::from_bytes(&other));
        }

        #[test]
        fn json_round_trip(bytes in hostile_bytes()) {
            let escaped = Escaped::from_bytes(&bytes);
            let json = serde_json::to_string(&escaped).unwrap();
            prop_assert!(!json.chars().any(is_dangerous));
            prop_assert_eq!(serde_json::from_str::<Escaped>(&json).unwrap(), escaped);
        }
    }

    #[test]
    fn examples() {
        for (bytes, escaped) in [
            (&b"/bin/sh -c 'ls'"[..], "/bin/sh -c 'ls'"),
            (b"a\nb\r\tc", "a\\nb\\r\\tc"),
            (b"\x1b[31m\x7f\0", "\\x1b[31m\\x7f\\x00"),
            (b"C:\\x", "C:\\\\x"),
            ("größe.日本".as_bytes(), "größe.日本"),
            ("\u{202e}gpj.exe".as_bytes(), "\\u{202e}gpj.exe"),
            ("\u{85}".as_bytes(), "\\u{85}"),
            (b"\x85\xff", "\\x85\\xff"),
        ] {
            assert_eq!(Escaped::from_bytes(bytes), escaped);
        }
    }

    #[test]
    fn printable_leaves_what_is_escaped_already() {
        let sentence = format!("no container {}\x1b", Escaped::from("\u{202e}\n"));
        assert_eq!(printable(&sentence), "no container \\u{202e}\\n\\x1b");
    }

    #[test]
    fn text_that_is_not_escaped_is_refused_with_its_place() {
        for (text, offset) in [
            ("ab\x1b", 2),
            ("\u{202e}", 0),
            ("a\\", 1),
            ("\\q", 0),
            ("\\x+1", 0),
            ("é\\xé", 2),
            ("\\u{110000}", 0),
            ("\\u{}", 0),
        ] {
            assert_eq!(Escaped::parse(text), Err(Malformed { offset }), "{text:?}");
        }
    }
}
