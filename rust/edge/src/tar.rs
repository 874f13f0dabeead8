//! A bundle in one tar file, read in place: every member is a part of the mapped bytes, so nothing can expand.

use bytes::Bytes;

use crate::error::Error;
use crate::manifest::{FILES, MANIFEST};

const BLOCK: usize = 512;

/// Whether bytes start like a tar file as `centroute export --tar` writes it.
#[must_use]
pub fn is_tar(bytes: &[u8]) -> bool {
    bytes.get(257..262) == Some(b"ustar")
}

/// The members by name. Only the files of a bundle may be in it, each once.
pub fn read(archive: &Bytes) -> Result<Vec<(String, Bytes)>, Error> {
    let mut members: Vec<(String, Bytes)> = Vec::new();
    let mut place = 0;
    loop {
        let header = archive.get(place..place + BLOCK).ok_or_else(|| Error::bundle("the tar file is cut off"))?;
        if header.iter().all(|&byte| byte == 0) {
            return if archive[place..].iter().all(|&byte| byte == 0) {
                Ok(members)
            } else {
                Err(Error::bundle("the tar file goes on behind its end"))
            };
        }
        let (name, size) = read_header(header)?;
        if members.iter().any(|(other, _)| *other == name) {
            return Err(Error::bundle(format!("{name:?} stands twice in the tar file")));
        }
        let start = place + BLOCK;
        let end = start
            .checked_add(size)
            .filter(|&end| end <= archive.len())
            .ok_or_else(|| Error::bundle(format!("{name}: {size} bytes are more than the tar file has")))?;
        members.push((name, archive.slice(start..end)));
        place = start + size.next_multiple_of(BLOCK);
    }
}

/// Name and size of a member.
fn read_header(header: &[u8]) -> Result<(String, usize), Error> {
    // The checksum is taken with its own field as spaces.
    let sum: usize = header.iter().map(|&byte| usize::from(byte)).sum();
    let own: usize = header[148..156].iter().map(|&byte| usize::from(byte)).sum();
    if octal(&header[148..156]) != Some(sum - own + 8 * usize::from(b' ')) {
        return Err(Error::bundle("not a tar file without compression, or a damaged one"));
    }
    let text =
        |field: &[u8]| String::from_utf8_lossy(field.split(|&byte| byte == 0).next().unwrap_or_default()).into_owned();
    let (prefix, name) = (text(&header[345..500]), text(&header[..100]));
    let name = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
    if name.starts_with('/') || name.split('/').any(|part| part == "..") {
        return Err(Error::bundle(format!("{name:?} leaves the folder")));
    }
    if !matches!(header[156], 0 | b'0') {
        return Err(Error::bundle(format!("{name:?} is a link, a folder or another thing that is no file")));
    }
    if name != MANIFEST && !FILES.contains(&name.as_str()) {
        return Err(Error::bundle(format!("{name:?} is no file of a bundle")));
    }
    match octal(&header[124..136]) {
        Some(size) => Ok((name, size)),
        None => Err(Error::bundle(format!("{name}: its size in the tar file is no number"))),
    }
}

/// A number in octal digits, ended by a space or zero.
fn octal(field: &[u8]) -> Option<usize> {
    let digits = field.split(|&byte| byte == 0 || byte == b' ').find(|part| !part.is_empty())?;
    usize::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, kind: u8, size: usize, data: &[u8]) -> Vec<u8> {
        let mut header = [0; BLOCK];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
        header[148..156].fill(b' ');
        header[156] = kind;
        header[257..263].copy_from_slice(b"ustar\0");
        let sum: usize = header.iter().map(|&byte| usize::from(byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        let mut bytes = header.to_vec();
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        bytes
    }

    fn read_with_end(mut bytes: Vec<u8>) -> Result<Vec<(String, Bytes)>, Error> {
        bytes.resize(bytes.len() + 2 * BLOCK, 0);
        assert!(is_tar(&bytes));
        read(&bytes.into())
    }

    #[test]
    fn members_are_parts_of_the_archive() {
        let archive = [member(MANIFEST, b'0', 2, b"{}"), member(FILES[3], 0, 3, b"abc")].concat();
        let members = read_with_end(archive).expect("sound");
        assert_eq!(members[1], (FILES[3].to_owned(), Bytes::from_static(b"abc")));
    }

    #[test]
    fn what_leaves_the_folder_or_grows_is_refused() {
        for (name, kind, size, fault) in [
            ("/etc/passwd", b'0', 1, "leaves the folder"),
            ("embedder/../../x", b'0', 1, "leaves the folder"),
            (MANIFEST, b'2', 1, "is a link"),
            (MANIFEST, b'S', 1, "is a link"),
            ("other", b'0', 1, "no file of a bundle"),
            (MANIFEST, b'0', 1 << 30, "more than the tar file has"),
        ] {
            let error = read_with_end(member(name, kind, size, b"a")).expect_err(fault);
            assert!(error.message.contains(fault), "{error}");
        }
        let twice = [member(MANIFEST, b'0', 1, b"a"), member(MANIFEST, b'0', 1, b"a")].concat();
        assert!(read_with_end(twice).expect_err("twice").message.contains("twice"));
        let mut damaged = member(MANIFEST, b'0', 1, b"a");
        damaged[3] ^= 1;
        assert!(read_with_end(damaged).expect_err("checksum").message.contains("damaged"));
        assert!(read(&member(MANIFEST, b'0', 1, b"a").into()).expect_err("no end").message.contains("cut off"));
    }
}
