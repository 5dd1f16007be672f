//! Bodies that something compressed after they were signed.
//!
//! The gateway never decompresses. Here it is done to a body that somebody captured, within a bound, to see whether that is
//! why its signature does not fit.

use std::io::Read;

use flate2::read::{MultiGzDecoder, ZlibDecoder};

/// Longest body that is looked into.
const BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What a gzip or zlib stream holds; `None` when it is neither, is broken, or holds too much.
pub(super) fn unpacked(body: &[u8]) -> Option<Vec<u8>> {
    match body {
        [0x1f, 0x8b, ..] => read(MultiGzDecoder::new(body)),
        [0x78, ..] => read(ZlibDecoder::new(body)),
        _ => None,
    }
}

fn read(stream: impl Read) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    stream.take(BYTES_MAX.saturating_add(1)).read_to_end(&mut out).ok()?;
    (out.len() as u64 <= BYTES_MAX).then_some(out)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};

    use super::*;

    #[test]
    fn a_bomb_is_not_unpacked() {
        // Whoever explains a capture of an attack would have it on his own machine.
        let packed = |bytes: u64| {
            let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
            gzip.write_all(&vec![0; bytes as usize]).unwrap();
            gzip.finish().unwrap()
        };
        assert_eq!(
            unpacked(&packed(BYTES_MAX)).map(|body| body.len() as u64),
            Some(BYTES_MAX)
        );
        assert_eq!(unpacked(&packed(BYTES_MAX + 1)), None);
        assert_eq!(unpacked(&packed(10)[..15]), None);
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
        zlib.write_all(b"{}").unwrap();
        assert_eq!(unpacked(&zlib.finish().unwrap()).as_deref(), Some(b"{}".as_slice()));
        assert_eq!(unpacked(b"{}"), None);
    }
}
