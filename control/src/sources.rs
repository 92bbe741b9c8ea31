//! The files that rulesets are read from, or rules.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use ringfence_policy::Source;
use thiserror::Error;

/// Longest file that is read, in bytes; thousands of rulesets fit.
pub const MAX_FILE: u64 = 16 * 1024 * 1024;

/// Why files could not be read.
#[derive(Debug, Error)]
pub enum SourcesError {
    /// The file or folder is not there, or may not be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Not text.
    #[error("cannot read {}: it is not UTF-8 text", .0.display())]
    NotText(PathBuf),
    /// A folder of that name: what container runtimes make where a file to be mounted is missing.
    #[error("cannot read rulesets from {}: it is a folder, and its name is that of a file", .0.display())]
    Folder(PathBuf),
    /// A link to nothing.
    #[error("cannot read rulesets from {}: it is a symbolic link to what does not exist", .0.display())]
    Dangling(PathBuf),
    /// Larger than [`MAX_FILE`].
    #[error("cannot read {}: it is longer than {MAX_FILE} bytes", .0.display())]
    TooLong(PathBuf),
}

/// Reads one file, or the `.yaml` and `.yml` files of a folder by name. Hidden ones are passed over: a mounted
/// `ConfigMap` keeps its older versions in those.
pub fn read(path: &Path) -> Result<Vec<Source>, SourcesError> {
    let fail = |source| SourcesError::Io { path: path.to_owned(), source };
    if !fs::metadata(path).map_err(fail)?.is_dir() {
        return Ok(vec![read_file(path)?]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(fail)? {
        let file = entry.map_err(fail)?.path();
        if is_ruleset_file(&file) {
            files.push(file);
        }
    }
    files.sort();
    files.iter().map(|file| read_file(file)).collect()
}

fn is_ruleset_file(file: &Path) -> bool {
    let hidden = file.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    !hidden && file.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}

/// Reads one file.
pub fn read_file(file: &Path) -> Result<Source, SourcesError> {
    let fail = |source| SourcesError::Io { path: file.to_owned(), source };
    let metadata = match fs::metadata(file) {
        Err(_) if file.is_symlink() && !file.exists() => return Err(SourcesError::Dangling(file.to_owned())),
        metadata => metadata.map_err(fail)?,
    };
    if metadata.is_dir() {
        return Err(SourcesError::Folder(file.to_owned()));
    }
    if metadata.len() > MAX_FILE {
        return Err(SourcesError::TooLong(file.to_owned()));
    }
    let bytes = fs::read(file).map_err(fail)?;
    let text = String::from_utf8(bytes).map_err(|_| SourcesError::NotText(file.to_owned()))?;
    Ok(Source { name: file.display().to_string(), text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_yaml_files_of_a_folder_by_name() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.yml", "a.yaml", "notes.txt", ".hidden.yaml"] {
            fs::write(folder.path().join(name), name).unwrap();
        }
        fs::create_dir(folder.path().join("sub")).unwrap();
        let texts: Vec<_> = read(folder.path()).unwrap().into_iter().map(|source| source.text).collect();
        assert_eq!(texts, ["a.yaml", "b.yml"]);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing");
        let error = read(&missing).unwrap_err().to_string();
        assert!(error.contains(missing.to_str().unwrap()) && error.contains("No such file"), "{error}");
        let binary = folder.path().join("binary.yaml");
        fs::write(&binary, b"\xff\xfe").unwrap();
        assert!(matches!(read(folder.path()), Err(SourcesError::NotText(file)) if file == binary));
        let link = folder.path().join("a.yaml");
        std::os::unix::fs::symlink(missing, &link).unwrap();
        assert!(matches!(read(folder.path()), Err(SourcesError::Dangling(file)) if file == link));
        fs::remove_file(&link).unwrap();
        fs::create_dir(&link).unwrap();
        assert!(matches!(read(folder.path()), Err(SourcesError::Folder(file)) if file == link));
    }
}
