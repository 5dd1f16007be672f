//! Numbers and addresses as text, written into a buffer without the detours of formatting: several are written for every
//! request, into its log line and into both heads.

#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "digits, at places that their number leaves no choice of"
)]

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

/// Every octet in decimal digits with a dot behind them, and how many characters that are.
const OCTETS: [([u8; 4], u8); 256] = {
    let mut octets = [([b'.'; 4], 0); 256];
    let mut octet = 0;
    while octet < 256 {
        let digits = [octet / 100, octet / 10 % 10, octet % 10];
        let mut place = if octet < 10 {
            2
        } else if octet < 100 {
            1
        } else {
            0
        };
        while place < 3 {
            let length = octets[octet].1;
            octets[octet].0[length as usize] = b'0' + digits[place] as u8;
            octets[octet].1 = length + 1;
            place += 1;
        }
        octets[octet].1 += 1;
        octet += 1;
    }
    octets
};

/// Appends `address` as it displays.
pub fn ip(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => {
            let mut text = [0; 4 * 5];
            let mut end = 0_usize;
            for octet in v4.octets() {
                let (digits, length) = OCTETS[usize::from(octet)];
                // What stands behind the dot is written over by the next one.
                if let Some(place) = text[end..].first_chunk_mut() {
                    *place = digits;
                }
                end += usize::from(length);
            }
            // Less the last dot.
            out.extend_from_slice(&text[..end - 1]);
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
