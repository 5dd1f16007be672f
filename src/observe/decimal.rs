//! Numbers and addresses as text, written into a buffer without the detours of formatting: several are written for every
//! request, into its log line and into both heads.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};

/// Appends `value` in decimal digits.
pub fn number(out: &mut Vec<u8>, value: u64) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    let mut rest = value;
    for (position, digit) in digits.iter_mut().enumerate().rev() {
        *digit = b'0' + (rest % 10) as u8;
        start = position;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

/// Appends `address` as it displays.
pub fn ip(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => {
            for (place, octet) in v4.octets().into_iter().enumerate() {
                if place > 0 {
                    out.push(b'.');
                }
                number(out, u64::from(octet));
            }
        }
        // Writing to memory does not fail.
        IpAddr::V6(v6) => drop(write!(out, "{v6}")),
    }
}

/// Appends `address` as it displays.
pub fn socket(out: &mut Vec<u8>, address: SocketAddr) {
    match address {
        SocketAddr::V4(_) => {
            ip(out, address.ip());
            out.push(b':');
            number(out, u64::from(address.port()));
        }
        SocketAddr::V6(_) => drop(write!(out, "{address}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_reads_as_it_displays() {
        // A client's address that reads otherwise in the log than in a block list protects nobody.
        for value in [0, 9, 10, 255, 1_000_000, u64::MAX] {
            let mut out = Vec::new();
            number(&mut out, value);
            assert_eq!(out, value.to_string().as_bytes());
        }
        for text in [
            "0.0.0.0",
            "127.0.0.1",
            "255.10.9.100",
            "::1",
            "2001:db8::7:0:0:1",
            "::ffff:1.2.3.4",
        ] {
            let address: IpAddr = text.parse().unwrap();
            let (mut plain, mut with_port) = (Vec::new(), Vec::new());
            ip(&mut plain, address);
            assert_eq!(plain, address.to_string().as_bytes());
            let address = SocketAddr::new(address, 8443);
            socket(&mut with_port, address);
            assert_eq!(with_port, address.to_string().as_bytes());
        }
    }
}
