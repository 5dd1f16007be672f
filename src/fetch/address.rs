//! Which addresses the fetcher may connect to: those of the public internet.
//!
//! A name that a provider owns may still resolve to a machine of ours: by a poisoned or rebound answer, by a split
//! horizon, by a mistake. Keys are never served from inside, so every range that does not lead out is refused, also in
//! the spellings in which IPv6 carries IPv4. What is not known to lead out is refused: of IPv6, everything outside of
//! 2000::/3 but the translated addresses of IPv4 (RFC 6052), which are judged by what they translate to.
//!
//! The ranges are those of the IANA special-purpose address registries (RFC 6890 and its updates).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IPv4 ranges that do not lead out: network, bits of its prefix.
const INSIDE_V4: [([u8; 4], u32); 16] = [
    ([0, 0, 0, 0], 8),
    ([10, 0, 0, 0], 8),
    ([100, 64, 0, 0], 10),
    ([127, 0, 0, 0], 8),
    ([169, 254, 0, 0], 16),
    ([172, 16, 0, 0], 12),
    ([192, 0, 0, 0], 24),
    ([192, 0, 2, 0], 24),
    ([192, 88, 99, 0], 24),
    ([192, 168, 0, 0], 16),
    ([198, 18, 0, 0], 15),
    ([198, 51, 100, 0], 24),
    ([203, 0, 113, 0], 24),
    ([224, 0, 0, 0], 4),
    ([240, 0, 0, 0], 4),
    // The platform address of a large cloud: metadata and health checks, from inside only.
    ([168, 63, 129, 16], 32),
];

/// Ranges within 2000::/3 that do not lead out, or that carry other addresses: network, bits of its prefix.
const INSIDE_V6: [([u16; 8], u32); 5] = [
    // IETF assignments: Teredo, benchmarking, ORCHID.
    ([0x2001, 0, 0, 0, 0, 0, 0, 0], 23),
    ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32),
    // 6to4.
    ([0x2002, 0, 0, 0, 0, 0, 0, 0], 16),
    ([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20),
    // The exchange of IPv4-only test networks; never announced.
    ([0x3ffe, 0, 0, 0, 0, 0, 0, 0], 16),
];

/// The well-known prefix under which IPv4 addresses are reached from networks without IPv4.
const TRANSLATED: ([u16; 8], u32) = ([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96);

/// Whether `address` lies in the public internet.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let within = |(network, bits): &([u8; 4], u32)| {
        let apart = u32::from(address) ^ u32::from(Ipv4Addr::from(*network));
        apart.checked_shr(32_u32.saturating_sub(*bits)).unwrap_or(0) == 0
    };
    !INSIDE_V4.iter().any(within)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let within = |(network, bits): &([u16; 8], u32)| {
        let apart = u128::from(address) ^ u128::from(Ipv6Addr::from(*network));
        apart.checked_shr(128_u32.saturating_sub(*bits)).unwrap_or(0) == 0
    };
    if within(&TRANSLATED) {
        let [.., a, b, c, d] = address.octets();
        return is_public_v4(Ipv4Addr::new(a, b, c, d));
    }
    within(&([0x2000, 0, 0, 0, 0, 0, 0, 0], 3)) && !INSIDE_V6.iter().any(within)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_public_internet_is_asked() {
        // A key from an inside address is a key that whoever bends one DNS answer can choose; and the question itself
        // reaches machines that trust the inside.
        let rows = [
            ("8.8.8.8", true),
            ("52.94.5.1", true),
            ("1.0.0.0", true),
            ("9.255.255.255", true),
            ("11.0.0.0", true),
            ("100.63.255.255", true),
            ("100.128.0.0", true),
            ("126.255.255.255", true),
            ("128.0.0.0", true),
            ("169.253.255.255", true),
            ("169.255.0.0", true),
            ("172.15.255.255", true),
            ("172.32.0.0", true),
            ("192.0.1.0", true),
            ("192.167.255.255", true),
            ("192.169.0.0", true),
            ("198.17.255.255", true),
            ("198.20.0.0", true),
            ("223.255.255.255", true),
            ("0.0.0.0", false),
            ("0.255.255.255", false),
            ("10.0.0.0", false),
            ("10.255.255.255", false),
            ("100.64.0.0", false),
            ("100.127.255.255", false),
            ("127.0.0.1", false),
            ("127.255.255.255", false),
            ("168.63.129.16", false),
            ("169.254.169.254", false),
            ("172.16.0.0", false),
            ("172.31.255.255", false),
            ("192.0.0.8", false),
            ("192.0.2.1", false),
            ("192.88.99.1", false),
            ("192.168.0.0", false),
            ("192.168.255.255", false),
            ("198.18.0.0", false),
            ("198.19.255.255", false),
            ("198.51.100.1", false),
            ("203.0.113.1", false),
            ("224.0.0.1", false),
            ("239.255.255.255", false),
            ("240.0.0.0", false),
            ("255.255.255.255", false),
            ("2600:1f18::1", true),
            ("2a00:1450:4001::1", true),
            ("2001:200::1", true),
            ("2001:4860:4860::8888", true),
            ("64:ff9b::8.8.8.8", true),
            ("64:ff9b::127.0.0.1", false),
            ("64:ff9b::169.254.169.254", false),
            ("64:ff9b::10.1.2.3", false),
            ("64:ff9b:1::8.8.8.8", false),
            ("64:ff9b:0:1::8.8.8.8", false),
            ("::", false),
            ("::1", false),
            ("::8.8.8.8", false),
            ("::ffff:8.8.8.8", false),
            ("::ffff:127.0.0.1", false),
            ("::ffff:0:127.0.0.1", false),
            ("100::1", false),
            ("2001::1", false),
            ("2001:2::1", false),
            ("2001:10::1", false),
            ("2001:20::1", false),
            ("2001:1ff:ffff::1", false),
            ("2001:db8::1", false),
            ("2002:7f00:1::1", false),
            ("2002:808:808::1", false),
            ("3fff::1", false),
            ("4000::1", false),
            ("5f00::1", false),
            ("fc00::1", false),
            ("fd00:ec2::254", false),
            ("fe80::1", false),
            ("fec0::1", false),
            ("ff02::1", false),
        ];
        for (address, public) in rows {
            assert_eq!(is_public(address.parse().unwrap()), public, "{address}");
        }
    }
}
