//! Documents of which a part is written by a measurement: between `<!-- NAME -->` and `<!-- end of NAME -->`.

use std::fs;

use anyhow::{Context, Result};

use crate::places;

/// Writes a part of a document anew; `path` is below the workspace.
pub fn write(path: &str, name: &str, text: &str) -> Result<()> {
    let path = places::workspace().join(path);
    let before = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let after = replace(&before, name, text).with_context(|| format!("write {}", path.display()))?;
    fs::write(&path, after).with_context(|| format!("write {}", path.display()))
}

fn replace(document: &str, name: &str, text: &str) -> Result<String> {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->"));
    let missing = || format!("'{name}' is not between its marks, {begin:?} and {end:?}");
    let (head, rest) = document.split_once(&begin).with_context(missing)?;
    let (_, tail) = rest.split_once(&end).with_context(missing)?;
    Ok(format!("{head}{begin}{text}{end}{tail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_part_between_its_marks_is_written() {
        let document = "head\n<!-- a -->\nold\n<!-- end of a -->\n<!-- b -->\n<!-- end of b -->\n";
        let expected = "head\n<!-- a -->\nnew\n<!-- end of a -->\n<!-- b -->\n<!-- end of b -->\n";
        assert_eq!(replace(document, "a", "new\n").expect("it has its marks"), expected);
        let error = replace(document, "c", "").expect_err("there is no such part").to_string();
        assert!(error.contains("<!-- c -->"), "{error}");
    }
}
