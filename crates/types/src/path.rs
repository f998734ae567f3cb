//! The path of a file inside one space, parsed once.
//!
//! A [`WorkspacePath`] is proof that a string from a tool call, a URL or a
//! configuration file names something below the root of a space: it is
//! relative, normalised, and holds no `..`. It says nothing about what lies on
//! the disk (a component may still be a symbolic link); that is for the crate
//! that opens it. This module must never touch a file system, and must never
//! repair a path that climbs: such a path is refused, not clamped.

use std::fmt;
use std::str::FromStr;

/// Longest normalised path, in bytes.
pub const MAX_PATH_BYTES: usize = 1024;
/// Longest component, in bytes (`NAME_MAX` on Linux).
pub const MAX_COMPONENT_BYTES: usize = 255;
/// Largest number of components.
pub const MAX_COMPONENTS: usize = 64;
/// Longest input that is looked at at all, in bytes (`PATH_MAX` on Linux).
pub const MAX_INPUT_BYTES: usize = 4096;
/// Where a sandbox sees the root of its space.
pub const SANDBOX_ROOT: &str = "/workspace";

/// A normalised path relative to the root of a space.
///
/// The text never starts or ends with `/`, has no empty, `.` or `..`
/// component, no backslash, and no control character. The root is `.`.
/// Parsing the text of a `WorkspacePath` gives the same `WorkspacePath`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkspacePath {
    /// The components joined by `/`; empty for the root.
    text: String,
}

/// Why a path was refused. Every reason is the caller's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// The text was empty.
    #[error("the path is empty: name a file or directory relative to the workspace, or `.` for its root")]
    Empty,
    /// The text started with `/` and was not below the sandbox's root.
    #[error("the path is absolute: use a path relative to the workspace")]
    Absolute,
    /// A component was `..`.
    #[error("the path contains `..`: name the file from the workspace's root instead")]
    Parent,
    /// A NUL byte.
    #[error("the path contains a NUL byte: remove it")]
    Nul,
    /// A newline, another control character, or a character that reorders
    /// the text around it when shown.
    #[error("the path contains a newline or control character: remove it")]
    Control,
    /// A backslash.
    #[error("the path contains a backslash: separate components with `/`")]
    Backslash,
    /// The text started like a Windows drive (`C:`).
    #[error("the path starts with a drive letter: use a path relative to the workspace")]
    DriveLetter,
    /// A single name was wanted and the text held a `/`.
    #[error("the name contains `/`: give one file name without directories")]
    Separator,
    /// A component was longer than [`MAX_COMPONENT_BYTES`].
    #[error("a part of the path is longer than {MAX_COMPONENT_BYTES} bytes: shorten it")]
    ComponentTooLong,
    /// The path was longer than [`MAX_PATH_BYTES`].
    #[error("the path is longer than {MAX_PATH_BYTES} bytes: shorten it")]
    TooLong,
    /// The path had more than [`MAX_COMPONENTS`] components.
    #[error("the path has more than {MAX_COMPONENTS} parts: use fewer directories")]
    TooDeep,
}

impl WorkspacePath {
    /// The root of the space.
    #[must_use]
    pub const fn root() -> Self {
        Self { text: String::new() }
    }

    /// Parses a path relative to the root of a space. `.` is the root.
    ///
    /// # Errors
    /// [`PathError`] with the first reason found; absolute paths are refused.
    pub fn parse(input: &str) -> Result<Self, PathError> {
        check_input(input)?;
        if input.starts_with('/') {
            return Err(PathError::Absolute);
        }
        normalise(input)
    }

    /// Parses a path as a process in a sandbox writes it: relative to the
    /// root of the space, or absolute below [`SANDBOX_ROOT`].
    ///
    /// # Errors
    /// [`PathError`] with the first reason found. A sibling that only shares
    /// the prefix (`/workspace-2`) is absolute, hence refused.
    pub fn parse_in_sandbox(input: &str) -> Result<Self, PathError> {
        check_input(input)?;
        if !input.starts_with('/') {
            return normalise(input);
        }
        match input.strip_prefix(SANDBOX_ROOT) {
            Some(rest) if rest.bytes().all(|byte| byte == b'/') => Ok(Self::root()),
            Some(rest) if rest.starts_with('/') => normalise(rest.trim_start_matches('/')),
            _ => Err(PathError::Absolute),
        }
    }

    /// The normalised text; `.` for the root.
    #[must_use]
    pub fn as_str(&self) -> &str {
        if self.text.is_empty() { "." } else { &self.text }
    }

    /// The absolute path that a process in a sandbox would use.
    #[must_use]
    pub fn in_sandbox(&self) -> String {
        if self.is_root() { SANDBOX_ROOT.to_owned() } else { format!("{SANDBOX_ROOT}/{}", self.text) }
    }

    /// Whether this is the root of the space.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.text.is_empty()
    }

    /// The components from the root down; none for the root.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &str> + '_ {
        self.text.split('/').filter(|component| !component.is_empty())
    }

    /// The directory that holds this path, or `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let text = self.text.rsplit_once('/').map_or("", |(parent, _)| parent);
        Some(Self { text: text.to_owned() })
    }

    /// The last component, or `None` for the root.
    #[must_use]
    pub fn file_name(&self) -> Option<&str> {
        self.components().next_back()
    }

    /// The path of `name` inside this directory.
    ///
    /// # Errors
    /// [`PathError`] if `name` is not one plain component, or if the result
    /// would be too long or too deep.
    pub fn join(&self, name: &str) -> Result<Self, PathError> {
        check_input(name)?;
        if name.contains('/') {
            return Err(PathError::Separator);
        }
        match name {
            "." => return Err(PathError::Empty),
            ".." => return Err(PathError::Parent),
            _ => {}
        }
        if self.is_root() { normalise(name) } else { normalise(&format!("{}/{name}", self.text)) }
    }

    /// Whether this path is `other` or lies below it, by whole components.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        other.is_root()
            || self.text.strip_prefix(other.text.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl PathError {
    /// The code of the reply at the HTTP edge, the same for every reason.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        "path_traversal"
    }

    /// The stable reason, for audit rows and tests.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Absolute => "absolute",
            Self::Parent => "parent",
            Self::Nul => "nul",
            Self::Control => "control_character",
            Self::Backslash => "backslash",
            Self::DriveLetter => "drive_letter",
            Self::Separator => "separator",
            Self::ComponentTooLong => "component_too_long",
            Self::TooLong => "too_long",
            Self::TooDeep => "too_deep",
        }
    }
}

impl FromStr for WorkspacePath {
    type Err = PathError;

    fn from_str(input: &str) -> Result<Self, PathError> {
        Self::parse(input)
    }
}

impl fmt::Display for WorkspacePath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

impl fmt::Debug for WorkspacePath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "WorkspacePath({:?})", self.as_str())
    }
}

/// Checks that hold for the text as a whole, before it is split.
fn check_input(input: &str) -> Result<(), PathError> {
    if input.is_empty() {
        return Err(PathError::Empty);
    }
    // The cheap bound comes first, so that a huge input costs nothing.
    if input.len() > MAX_INPUT_BYTES {
        return Err(PathError::TooLong);
    }
    for character in input.chars() {
        match character {
            '\0' => return Err(PathError::Nul),
            '\\' => return Err(PathError::Backslash),
            _ if is_unprintable(character) => return Err(PathError::Control),
            _ => {}
        }
    }
    Ok(())
}

/// Characters that end a line or change how the rest of it is shown. A person
/// approves tool calls by reading the path, so what is shown must be what is
/// opened.
fn is_unprintable(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{2028}' | '\u{2029}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{200E}' | '\u{200F}'
        )
}

/// Splits a checked relative path, drops `.` and empty components, and
/// refuses `..`.
fn normalise(input: &str) -> Result<WorkspacePath, PathError> {
    let mut text = String::with_capacity(input.len());
    let mut count = 0_usize;
    for component in input.split('/') {
        match component {
            "" | "." => continue,
            ".." => return Err(PathError::Parent),
            _ if component.len() > MAX_COMPONENT_BYTES => return Err(PathError::ComponentTooLong),
            _ => {}
        }
        // Looked at here and not on the raw text, because `./C:` becomes `C:`.
        let bytes = component.as_bytes();
        if count == 0 && matches!(bytes, [letter, b':', ..] if letter.is_ascii_alphabetic()) {
            return Err(PathError::DriveLetter);
        }
        count += 1;
        if count > MAX_COMPONENTS {
            return Err(PathError::TooDeep);
        }
        if !text.is_empty() {
            text.push('/');
        }
        text.push_str(component);
    }
    if text.len() > MAX_PATH_BYTES {
        return Err(PathError::TooLong);
    }
    Ok(WorkspacePath { text })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn reason(input: &str) -> &'static str {
        WorkspacePath::parse(input).expect_err(input).reason()
    }

    #[test]
    fn a05_hostile_paths_are_refused_with_their_reason() {
        let long_component = "x".repeat(256);
        let long_path = vec!["x".repeat(200); 6].join("/");
        let deep = vec!["d"; 65].join("/");
        let huge = "a/".repeat(3000);
        for (input, expected) in [
            ("", "empty"),
            ("/", "absolute"),
            ("/etc/passwd", "absolute"),
            ("/workspace/x", "absolute"),
            ("//server/share", "absolute"),
            ("..", "parent"),
            ("../../B/files/x", "parent"),
            ("a/../../b", "parent"),
            ("a/..", "parent"),
            ("./..", "parent"),
            ("a\0b", "nul"),
            ("a\nb", "control_character"),
            ("a\rb", "control_character"),
            ("a\u{7f}b", "control_character"),
            ("a\u{85}b", "control_character"),
            ("a\u{202e}gpj.exe", "control_character"),
            ("a\\b", "backslash"),
            ("..\\..\\x", "backslash"),
            ("C:", "drive_letter"),
            ("c:/windows", "drive_letter"),
            ("./C:/windows", "drive_letter"),
            (long_component.as_str(), "component_too_long"),
            (long_path.as_str(), "too_long"),
            (deep.as_str(), "too_deep"),
            (huge.as_str(), "too_long"),
        ] {
            assert_eq!(reason(input), expected, "{input:?}");
        }
        assert_eq!(WorkspacePath::parse("..").expect_err("parent").code(), "path_traversal");
    }

    #[test]
    fn honest_paths_are_normalised() {
        for (input, expected) in [
            (".", "."),
            ("./", "."),
            ("././.", "."),
            ("a", "a"),
            ("a/b/", "a/b"),
            ("a//b/./c", "a/b/c"),
            ("...", "..."),
            ("..a/b..", "..a/b.."),
            (".hidden", ".hidden"),
            ("note: x", "note: x"),
            ("größe/日本", "größe/日本"),
            ("%2e%2e/x", "%2e%2e/x"),
        ] {
            assert_eq!(WorkspacePath::parse(input).expect(input).as_str(), expected);
        }
        let longest = "x".repeat(MAX_COMPONENT_BYTES);
        assert_eq!(WorkspacePath::parse(&longest).expect("longest").as_str(), longest);
        let deepest = vec!["d"; MAX_COMPONENTS].join("/");
        assert_eq!(WorkspacePath::parse(&deepest).expect("deepest").as_str(), deepest);
    }

    #[test]
    fn a07_the_sandbox_form_accepts_only_the_workspace_itself() {
        for (input, expected) in [
            ("/workspace", "."),
            ("/workspace/", "."),
            ("/workspace/x", "x"),
            ("/workspace//x/./y/", "x/y"),
            ("x/y", "x/y"),
            (".", "."),
        ] {
            assert_eq!(WorkspacePath::parse_in_sandbox(input).expect(input).as_str(), expected);
        }
        for (input, expected) in [
            ("/workspace-10/x", "absolute"),
            ("/workspacex", "absolute"),
            ("//workspace/x", "absolute"),
            ("/work", "absolute"),
            ("/etc/passwd", "absolute"),
            ("/workspace/../etc/passwd", "parent"),
            ("/workspace/..", "parent"),
            ("../workspace/x", "parent"),
            ("/workspace/C:/x", "drive_letter"),
            ("", "empty"),
        ] {
            let error = WorkspacePath::parse_in_sandbox(input).expect_err(input);
            assert_eq!(error.reason(), expected, "{input:?}");
        }
    }

    #[test]
    fn parents_names_and_joins() {
        let path = WorkspacePath::parse("a/b/c.txt").unwrap();
        assert_eq!(path.components().collect::<Vec<_>>(), ["a", "b", "c.txt"]);
        assert_eq!(path.file_name(), Some("c.txt"));
        assert_eq!(path.parent().unwrap().as_str(), "a/b");
        assert_eq!(path.in_sandbox(), "/workspace/a/b/c.txt");
        let root = WorkspacePath::root();
        assert_eq!(root, WorkspacePath::parse(".").unwrap());
        assert_eq!((root.file_name(), root.parent()), (None, None));
        assert_eq!(WorkspacePath::parse("a").unwrap().parent(), Some(root.clone()));
        assert_eq!(root.join("a").unwrap().join("b").unwrap().as_str(), "a/b");
        for name in ["", ".", "..", "a/b", "/a", "a\0", "a\\b"] {
            assert!(path.join(name).is_err(), "{name:?}");
        }
        assert!(WorkspacePath::parse(&vec!["d"; 64].join("/")).unwrap().join("x").is_err());
    }

    #[test]
    fn a07_within_compares_whole_components() {
        let parse = |text| WorkspacePath::parse(text).unwrap();
        assert!(parse("space-1/x").is_within(&parse("space-1")));
        assert!(parse("space-1").is_within(&parse("space-1")));
        assert!(parse("space-1").is_within(&WorkspacePath::root()));
        assert!(!parse("space-10/x").is_within(&parse("space-1")));
    }
}
