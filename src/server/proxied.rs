//! The PROXY protocol, versions 1 and 2: a load balancer says at the beginning of a connection for whom it connects
//! (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>).
//!
//! Whoever may write this header chooses whose limits are charged, so a listener that asks for it takes connections
//! from the listed networks only, and takes none without the header: a guess whether it is there would let a client
//! bring its own.

use std::io;
use std::net::{IpAddr, SocketAddr};

use ppp::{HeaderResult, PartialResult, v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Most bytes of a header. Version 1 ends by 107; version 2 may carry extensions, of which nobody needs this many.
const HEADER_BYTES_MAX: usize = 2048;

/// Reads the header, and not one byte more; the client it names, or `peer` where the load balancer speaks for itself
/// (health checks: `LOCAL`, `UNKNOWN`).
///
/// # Errors
/// There is no such header, it is longer than 2 KiB, names no internet address, or the connection ended.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin), peer: SocketAddr) -> io::Result<SocketAddr> {
    let mut header = Vec::with_capacity(128);
    loop {
        // What follows the header belongs to TLS or HTTP, so it is not read along with it.
        let wanted = wanted(&header).ok_or_else(broken)?;
        if wanted == 0 {
            return client(&header, peer).ok_or_else(broken);
        }
        let from = header.len();
        let to = from.saturating_add(wanted);
        if to > HEADER_BYTES_MAX {
            return Err(broken());
        }
        header.resize(to, 0);
        stream.read_exact(header.get_mut(from..).unwrap_or_default()).await?;
    }
}

fn broken() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

/// How many bytes are certainly still a part of the header; zero when it is whole, `None` when it is none.
fn wanted(header: &[u8]) -> Option<usize> {
    const V2_FIXED: usize = 16;
    // The shortest header of version 1: its name, and CRLF.
    if header.len() < v1::PROTOCOL_PREFIX.len() {
        return v1::PROTOCOL_PREFIX.len().checked_sub(header.len());
    }
    if header.starts_with(v1::PROTOCOL_PREFIX.as_bytes()) {
        return Some(usize::from(!header.ends_with(b"\r\n")));
    }
    let prefix = v2::PROTOCOL_PREFIX;
    if !prefix.starts_with(header.get(..prefix.len().min(header.len()))?) {
        return None;
    }
    let Some([high, low]) = header.get(14..V2_FIXED) else {
        return V2_FIXED.checked_sub(header.len());
    };
    let whole = V2_FIXED.checked_add(usize::from(u16::from_be_bytes([*high, *low])))?;
    whole.checked_sub(header.len())
}

fn client(header: &[u8], peer: SocketAddr) -> Option<SocketAddr> {
    let result = HeaderResult::parse(header);
    if !result.is_complete() {
        return None;
    }
    let address = |ip: IpAddr, port: u16| Some(SocketAddr::new(ip.to_canonical(), port));
    match result {
        HeaderResult::V1(header) => match header.ok()?.addresses {
            v1::Addresses::Unknown => Some(peer),
            v1::Addresses::Tcp4(known) => address(known.source_address.into(), known.source_port),
            v1::Addresses::Tcp6(known) => address(known.source_address.into(), known.source_port),
        },
        HeaderResult::V2(header) => {
            let header = header.ok()?;
            match (header.command, header.addresses) {
                (v2::Command::Local, _) => Some(peer),
                (v2::Command::Proxy, v2::Addresses::IPv4(known)) => {
                    address(known.source_address.into(), known.source_port)
                }
                (v2::Command::Proxy, v2::Addresses::IPv6(known)) => {
                    address(known.source_address.into(), known.source_port)
                }
                (v2::Command::Proxy, v2::Addresses::Unspecified | v2::Addresses::Unix(_)) => None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: &str = "10.0.0.1:5000";

    /// Who is named, and what is left unread.
    async fn read_all(bytes: &[u8]) -> (Option<String>, usize) {
        let mut stream = bytes;
        let client = read(&mut stream, PEER.parse().unwrap()).await.ok();
        (client.map(|client| client.to_string()), stream.len())
    }

    fn v2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let length = u16::try_from(addresses.len()).unwrap().to_be_bytes();
        [
            b"\r\n\r\n\0\r\nQUIT\n",
            &[0x20 | command, family][..],
            &length,
            addresses,
        ]
        .concat()
    }

    #[tokio::test]
    async fn the_client_is_read_and_nothing_behind_it() {
        // The first bytes of TLS would be lost, or the load balancer's address would be limited for everybody.
        let four = [192, 0, 2, 7, 192, 0, 2, 1, 0x30, 0x39, 0, 80];
        let mut six = [0; 36];
        six[..4].copy_from_slice(&[0x20, 1, 0x0d, 0xb8]);
        six[15] = 9;
        six[32..34].copy_from_slice(&[0x30, 0x39]);
        let with_extension = [&four[..], &[4, 0, 1, 9]].concat();
        let rows: [(Vec<u8>, Option<&str>); 17] = [
            (
                b"PROXY TCP4 192.0.2.7 192.0.2.1 12345 80\r\n".to_vec(),
                Some("192.0.2.7:12345"),
            ),
            (
                b"PROXY TCP6 2001:db8::9 2001:db8::1 12345 80\r\n".to_vec(),
                Some("[2001:db8::9]:12345"),
            ),
            (b"PROXY UNKNOWN\r\n".to_vec(), Some(PEER)),
            (v2(1, 0x11, &four), Some("192.0.2.7:12345")),
            (v2(1, 0x11, &with_extension), Some("192.0.2.7:12345")),
            (v2(1, 0x21, &six), Some("[2001:db8::9]:12345")),
            (v2(0, 0, &[]), Some(PEER)),
            (v2(1, 0, &[]), None),
            (v2(1, 0x11, &four[..8]), None),
            (v2(2, 0x11, &four), None),
            (b"PROXY TCP4 192.0.2.7 192.0.2.1 12345\r\n".to_vec(), None),
            (b"PROXY TCP4 192.0.2.777 192.0.2.1 1 80\r\n".to_vec(), None),
            (b"PROXY TCP4 192.0.2.7 192.0.2.1 99999 80\r\n".to_vec(), None),
            (b"proxy tcp4 192.0.2.7 192.0.2.1 1 80\r\n".to_vec(), None),
            (b"GET / HTTP/1.1\r\n".to_vec(), None),
            (b"\x16\x03\x01\x02\x00\x01".to_vec(), None),
            (b"PROXY ".to_vec(), None),
        ];
        for (header, expected) in rows {
            let (client, _) = read_all(&header).await;
            assert_eq!(client.as_deref(), expected, "{header:?}");
            if expected.is_some() {
                let (_, left) = read_all(&[&header[..], b"\x16\x03\x01"].concat()).await;
                assert_eq!(left, 3, "{header:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_header_without_an_end_is_not_read_for_ever() {
        // A byte a second would hold a place until the deadline, a megabyte of it memory.
        let endless = [b"PROXY TCP4 ".to_vec(), vec![b'1'; 100_000]].concat();
        let (client, left) = read_all(&endless).await;
        assert_eq!(client, None);
        assert!(left > 90_000, "{left}");
        let (client, left) = read_all(&v2(1, 0x11, &[0; 60_000])).await;
        assert_eq!((client, left), (None, 60_000), "what is announced is not read first");
        let mut largest = vec![0; 2048 - 16];
        largest[..4].copy_from_slice(&[192, 0, 2, 7]);
        largest[12..15].copy_from_slice(&[4, 7, 221]);
        assert_eq!(read_all(&v2(1, 0x11, &largest)).await.0.as_deref(), Some("192.0.2.7:0"));
    }
}
