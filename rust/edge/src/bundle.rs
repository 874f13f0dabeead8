//! A bundle on disk, a folder or a tar file: mapped into memory and checked against its manifest.

use std::fs::{self, File};
use std::path::Path;

use bytes::Bytes;

use crate::error::{Error, one_line};
use crate::manifest::{DESCRIPTION, FILES, MANIFEST, MAX_BYTES, MODEL, Manifest, ROUTER, TOKENIZER};
use crate::tar;

/// The checked files of a bundle. They stay where they are on disk, and are read as they are needed.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// What the bundle says of itself.
    pub manifest: Manifest,
    /// The same as it stands in the file.
    pub manifest_json: Bytes,
    /// The router file.
    pub router: Bytes,
    /// The embedder's description.
    pub description: Bytes,
    /// The embedder's table or graph.
    pub model: Bytes,
    /// The embedder's tokenizer.
    pub tokenizer: Bytes,
}

impl Bundle {
    /// Opens a folder or tar file and checks every file of it. Errors name `path`.
    ///
    /// The files are mapped: replace them by renaming, as `centroute export` does. One that is cut off in place while
    /// it is in use ends the process.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::open_with(path, |_| Ok(())).map(|(bundle, ())| bundle)
    }

    /// [`Self::open`], with something made of the bundle while its digests are computed on another thread. What was made
    /// of files that turn out to be others is dropped.
    pub fn open_with<T>(path: &Path, make: impl FnOnce(&Self) -> Result<T, Error>) -> Result<(Self, T), Error> {
        let about = |error: Error| Error { message: one_line(format!("{}: {error}", path.display())), ..error };
        let bundle = Self::read(path)?;
        let (checked, made) = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().spawn_scoped(scope, || bundle.check());
            let made = make(&bundle);
            let checked = match thread {
                Ok(thread) => thread.join().unwrap_or_else(|_| Err(Error::bundle("its check failed"))),
                Err(_) => bundle.check(),
            };
            (checked, made)
        });
        checked.map_err(about)?;
        let made = made.map_err(about)?;
        Ok((bundle, made))
    }

    /// Checks sizes and digests.
    fn check(&self) -> Result<(), Error> {
        let contents = [&self.description, &self.model, &self.tokenizer, &self.router];
        FILES.iter().zip(contents).try_for_each(|(name, bytes)| self.manifest.check(name, bytes))
    }

    /// Maps the files and reads the manifest.
    fn read(path: &Path) -> Result<Self, Error> {
        let name = path.display();
        let about = |error: Error| Error::bundle(format!("{name}: {error}"));
        let kind = fs::metadata(path).map_err(|error| about(unreadable(&error)))?;
        let mut files = if kind.is_dir() {
            read_folder(path).map_err(about)?
        } else if kind.is_file() {
            let archive = map(path).map_err(about)?;
            if !tar::is_tar(&archive) {
                return Err(about(Error::bundle("not a bundle: neither a folder nor a tar file without compression")));
            }
            tar::read(&archive).map_err(about)?
        } else {
            return Err(about(Error::bundle("not a bundle: no folder and no regular file")));
        };
        let mut take = |wanted: &str| {
            let found = files.iter().position(|(name, _)| name == wanted);
            found.map(|place| files.swap_remove(place).1).ok_or_else(|| about(missing(wanted)))
        };
        let manifest_json = take(MANIFEST)?;
        if manifest_json.len() as u64 > MAX_BYTES {
            return Err(about(Error::bundle(format!("{MANIFEST}: more than {MAX_BYTES} bytes"))));
        }
        let manifest = Manifest::from_json(&manifest_json).map_err(about)?;
        Ok(Self {
            manifest_json,
            router: take(ROUTER)?,
            description: take(DESCRIPTION)?,
            model: take(MODEL)?,
            tokenizer: take(TOKENIZER)?,
            manifest,
        })
    }
}

fn missing(name: &str) -> Error {
    Error::bundle(format!("{name} is missing"))
}

fn unreadable(error: &std::io::Error) -> Error {
    // "(os error 2)" says nothing to people.
    let text = error.to_string().to_lowercase();
    Error::bundle(format!("cannot be read ({})", text.split(" (os error").next().unwrap_or_default()))
}

/// Every file of the folder, mapped. A link, a further folder or another file is refused.
fn read_folder(root: &Path) -> Result<Vec<(String, Bytes)>, Error> {
    let mut found = Vec::new();
    // Told first: a folder without it is another thing, and not a bundle that lacks something.
    if !root.join(MANIFEST).exists() {
        return Err(Error::bundle(format!("not a bundle ({MANIFEST} is missing)")));
    }
    for (prefix, folder) in [("", root.to_owned()), ("embedder/", root.join("embedder"))] {
        if !prefix.is_empty() && !folder.is_dir() {
            return Err(missing(DESCRIPTION));
        }
        for entry in fs::read_dir(&folder).map_err(|error| unreadable(&error))? {
            let entry = entry.map_err(|error| unreadable(&error))?;
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            // That of the entry itself: a link is not followed.
            let kind = entry.file_type().map_err(|error| unreadable(&error))?;
            if kind.is_symlink() {
                return Err(Error::bundle(format!("{name}: is a link, which a bundle may not hold")));
            }
            if name == "embedder" && kind.is_dir() {
                continue;
            }
            if !kind.is_file() || (name != MANIFEST && !FILES.contains(&name.as_str())) {
                return Err(Error::bundle(format!("{name}: does not belong into a bundle")));
            }
            let bytes = map(&entry.path()).map_err(|error| Error::bundle(format!("{name}: {error}")))?;
            found.push((name, bytes));
        }
    }
    Ok(found)
}

/// A file's contents, mapped into memory.
fn map(path: &Path) -> Result<Bytes, Error> {
    let file = File::open(path).map_err(|error| unreadable(&error))?;
    if file.metadata().map_err(|error| unreadable(&error))?.len() == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: the mapping is private and read-only. Bundles are replaced by renaming and not written in place; a process
    // that does so anyway changes numbers of a table or ends this one, which the documentation says.
    let mapping = unsafe { memmap2::Mmap::map(&file) }.map_err(|error| unreadable(&error))?;
    Ok(Bytes::from_owner(mapping))
}
