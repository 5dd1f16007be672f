//! A secret that prints nothing, is wiped when dropped and is never empty; and the places secrets come from.
//!
//! An empty key is the oldest hole in webhook verification: an unset variable, a blank file or a stray list item
//! becomes the key `""`, which anybody can sign with. Here that value cannot be made, so nothing downstream has
//! to remember to check.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Secrets shorter than this many bytes are refused unless the route says `short_secrets: true`.
pub const SECRET_BYTES_MIN: usize = 16;

/// A secret file larger than this is not a secret but a mistake.
const SECRET_FILE_BYTES_MAX: u64 = 64 * 1024;

/// Key material as the operator gave it, before a scheme decodes it.
///
/// Never empty. `Debug` prints no byte of it; the memory is wiped on drop.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the bytes as they are.
    ///
    /// # Errors
    /// [`SecretError::Empty`] when nothing but white space is left.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, SecretError> {
        let bytes = Zeroizing::new(bytes.into());
        if bytes.trim_ascii().is_empty() {
            return Err(SecretError::Empty);
        }
        Ok(Secret(bytes))
    }

    /// The bytes, for the one place that turns them into a key.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Writes the secret to a file that is not there yet and that only its owner can read. When this returns, a power
    /// cut cannot take it away.
    ///
    /// # Errors
    /// [`SecretError::Kept`] when the file is there already or cannot be written; none is left behind then.
    pub fn keep(&self, path: &Path) -> Result<(), SecretError> {
        let failed = |e: io::Error| SecretError::Kept(path.to_owned(), e.to_string());
        let options = OpenOptions::new().write(true).create_new(true).mode(0o600).to_owned();
        let mut file = options.open(path).map_err(failed)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let written = file
            .write_all(&self.0)
            .and_then(|()| file.sync_all())
            .and_then(|()| File::open(folder.unwrap_or(Path::new(".")))?.sync_all());
        written.map_err(|e| {
            // Half a secret in the way of the next one would be worse than none.
            let _ = fs::remove_file(path);
            failed(e)
        })
    }

    /// Length in bytes; never zero.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Where a secret is read from.
#[derive(Clone, Debug)]
pub enum SecretSource {
    /// An environment variable.
    Env(String),
    /// A file; one trailing line end is not part of the secret.
    File(PathBuf),
    /// Written into the configuration itself; fit for trying things out, warned about at start.
    Value(Secret),
}

impl SecretSource {
    /// Reads the secret.
    ///
    /// # Errors
    /// Every way a secret can fail to be there is an error: unset, unreadable, blank, or a `${VAR}`, `$VAR`, `%VAR%` or
    /// `{{ template }}` that nobody expanded. The message names the place, never the content.
    pub fn resolve(&self) -> Result<Secret, SecretError> {
        let bytes = match self {
            SecretSource::Env(name) => match std::env::var_os(name) {
                Some(value) => value.into_encoded_bytes(),
                None => return Err(SecretError::Unset(speakable(name))),
            },
            SecretSource::File(path) => {
                let unreadable = |e: io::Error| SecretError::File(path.clone(), e.to_string());
                let size = fs::metadata(path).map_err(unreadable)?.len();
                if size > SECRET_FILE_BYTES_MAX {
                    let why = format!("{size} bytes is too large for a secret");
                    return Err(SecretError::File(path.clone(), why));
                }
                let mut bytes = fs::read(path).map_err(unreadable)?;
                if bytes.ends_with(b"\n") {
                    bytes.pop();
                }
                if bytes.ends_with(b"\r") {
                    bytes.pop();
                }
                bytes
            }
            SecretSource::Value(secret) => secret.expose().to_vec(),
        };
        let secret = Secret::new(bytes)?;
        if is_placeholder(secret.expose()) {
            return Err(SecretError::Unexpanded);
        }
        Ok(secret)
    }
}

/// Whether it is what some tool should have put a secret in place of.
fn is_placeholder(text: &[u8]) -> bool {
    let between = |begin: &[u8], end: &[u8]| text.strip_prefix(begin).and_then(|text| text.strip_suffix(end));
    let name = between(b"$", b"").or_else(|| between(b"%", b"%"));
    let is_name = |name: &[u8]| {
        name.iter()
            .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || *b == b'_')
    };
    between(b"${", b"}").is_some() || between(b"{{", b"}}").is_some() || name.is_some_and(is_name)
}

/// The name of a variable, unless it looks like a secret that was typed in its place.
fn speakable(name: &str) -> String {
    let is_name = name
        .bytes()
        .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
    match is_name && name.len() <= 64 {
        true => name.to_owned(),
        false => "of that name (not shown: names are A-Z, 0-9 and _)".to_owned(),
    }
}

/// Why there is no secret. No variant carries a byte of one.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Nothing but white space.
    #[error("the secret is empty")]
    Empty,
    /// The environment variable is not set.
    #[error("environment variable {0} is not set")]
    Unset(String),
    /// The file cannot be used.
    #[error("cannot read {}: {}", .0.display(), .1)]
    File(PathBuf, String),
    /// The file cannot be written.
    #[error("cannot write {}: {}", .0.display(), .1)]
    Kept(PathBuf, String),
    /// The value is a placeholder such as `${NAME}`, left as it was written.
    #[error("the secret is an unexpanded placeholder")]
    Unexpanded,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_empty_secret_can_be_made() {
        // An empty HMAC key verifies anybody's forgeries.
        for blank in ["", " ", "\n", "\t \r\n"] {
            assert!(matches!(Secret::new(blank), Err(SecretError::Empty)), "{blank:?}");
        }
    }

    #[test]
    fn debug_shows_nothing() {
        let secret = Secret::new("hunter2hunter2").unwrap();
        assert_eq!(format!("{secret:?}"), "Secret(..)");
    }

    #[test]
    fn a_secret_typed_in_place_of_a_variable_is_not_repeated() {
        // `env: whsec_...` is an easy slip, and the error message goes to a log.
        let slip = SecretSource::Env("whsec_c2VjcmV0".into());
        assert!(!slip.resolve().unwrap_err().to_string().contains("c2Vj"));
    }

    #[test]
    fn a_file_loses_one_line_end_only() {
        // Trimming more would turn two different secrets into one.
        let path = std::env::temp_dir().join(format!("hookward-secret-{}", std::process::id()));
        fs::write(&path, "  key with spaces \r\n").unwrap();
        let secret = SecretSource::File(path.clone()).resolve().unwrap();
        fs::remove_file(path).unwrap();
        assert_eq!(secret.expose(), b"  key with spaces ");
    }

    #[test]
    fn a_kept_secret_is_its_owners_and_is_never_overwritten() {
        // Another user of the machine could forge events; or the secret in use would be gone.
        use std::os::unix::fs::PermissionsExt as _;
        let path = std::env::temp_dir().join(format!("hookward-kept-{}", std::process::id()));
        Secret::new("first").unwrap().keep(&path).unwrap();
        assert!(matches!(
            Secret::new("second").unwrap().keep(&path),
            Err(SecretError::Kept(..))
        ));
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        let read = SecretSource::File(path.clone()).resolve().unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!((mode & 0o777, read.expose()), (0o600, &b"first"[..]));
        assert!(
            Secret::new("x")
                .unwrap()
                .keep(Path::new("/nonexistent/secret"))
                .is_err()
        );
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        let unset = SecretSource::Env("HOOKWARD_TEST_SURELY_UNSET".into());
        assert!(matches!(unset.resolve(), Err(SecretError::Unset(_))));
        let missing = SecretSource::File("/nonexistent/secret".into());
        assert!(matches!(missing.resolve(), Err(SecretError::File(..))));
    }
}
