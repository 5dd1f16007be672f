//! Which templates are accepted, and that those have one reading.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::secret::Secret;
use crate::signature::extract::read_id;
use crate::signature::timestamp::Unit;

const SECONDS: Given = Given {
    unit: Some(Unit::Seconds),
    id_bytes: None,
};

fn rules(text: &str) -> Option<(Option<Rule>, Option<Rule>, bool)> {
    let template = Template::parse(text, SECONDS).ok()?;
    Some((template.timestamp(), template.id(), template.has_body()))
}

#[test]
fn what_can_be_told_apart_is_accepted() {
    // A template that can be cut in two ways turns a part of the body into a fresh timestamp.
    use Rule::{Free, Width, Without};
    let rows = [
        ("{body}", Some((None, None, true))),
        ("POST{body}", Some((None, None, true))),
        ("{timestamp}.{body}", Some((Some(Free), None, true))),
        ("v0:{timestamp}:{body}", Some((Some(Free), None, true))),
        ("{timestamp}{body}", Some((Some(Width(10)), None, true))),
        ("{timestamp}0{body}", Some((Some(Width(10)), None, true))),
        ("{body}{timestamp}", Some((Some(Width(10)), None, true))),
        ("{body}.{timestamp}", Some((Some(Free), None, true))),
        ("{body}.0{timestamp}", Some((Some(Width(10)), None, true))),
        ("{id}.{timestamp}.{body}", Some((Some(Free), Some(Without(b'.')), true))),
        (
            "{id}, {timestamp}{body}",
            Some((Some(Width(10)), Some(Without(b',')), true)),
        ),
        ("{body}.{id}.{timestamp}", Some((Some(Free), Some(Without(b'.')), true))),
        ("{timestamp}{id}", Some((Some(Width(10)), Some(Free), false))),
        ("{timestamp}", Some((Some(Free), None, false))),
        ("{{{body}}}", Some((None, None, true))),
        ("[[{body}]]", Some((None, None, true))),
        ("{id}{body}", None),
        ("{id}{timestamp}.{body}", None),
        ("{body}{id}", None),
        ("{id}{timestamp}", None),
        ("", None),
        ("constant", None),
        ("{{body}}", None),
        ("{body}{body}", None),
        ("{body}{body_sha256}", None),
        ("{timestamp}.{timestamp}.{body}", None),
        ("{id}.{id}.{body}", None),
        ("{ts}.{body}", None),
        ("{Body}", None),
        ("{ body }", None),
        ("{}{body}", None),
        ("{body", None),
        ("body}", None),
        ("{body}}", None),
        ("{{body}", None),
        ("[{body}", None),
        ("{body}]", None),
    ];
    for (text, expected) in rows {
        assert_eq!(rules(text), expected, "{text:?}");
    }
    assert!(Template::parse(&("x".repeat(2042) + "{body}"), SECONDS).is_ok());
    assert!(Template::parse(&("x".repeat(2043) + "{body}"), SECONDS).is_err());
}

#[test]
fn values_of_a_request_are_fenced_or_refused() {
    // A nonce that may run over into the body makes the beginning of a forged body a part of the nonce.
    let rows = [
        ("{header:a}\n{header:b}\n{timestamp}\n{body_sha256}", true),
        ("{method}\n{path}\n{timestamp}\n{body_sha256}", true),
        ("{body}.{header:a}.{timestamp}", true),
        ("{body}{header:a}", false),
        ("{header:a}{body}", false),
        ("{header:a}{body_sha256}", false),
        ("{header:a}.{body}", true),
        ("{query:a}.{body}", true),
        ("{field:n}.{body}", true),
        ("{setting:a}{body}{setting:a}", true),
        ("{url}{body}", true),
        ("{body}{url}", true),
        ("{method}{url}{body}", true),
        ("{header:a}{url}{body}", false),
        ("{url}{sorted_form}", true),
        ("{sorted_form}{body}", false),
        ("{json:a}{json:b}{json:c}", true),
        ("{json:a}{url}", true),
        ("{json:a}{timestamp}", false),
        ("{timestamp}{json:a}", true),
        ("{json:a}{id}", false),
        ("{url_base}{header:a}", true),
        ("[id:{query:id};][request-id:{header:x};]ts:{timestamp};", true),
        ("[id:{query:id};]id:{timestamp};", false),
        ("[id:{query:id};][id:{header:x};]ts:{timestamp};", false),
        ("[id:{query:id};]{timestamp};", false),
        ("[id:{query:id};]ts:{timestamp}.{body}", true),
        ("{body}[id:{query:id};]", false),
        ("[{query:id};]x{body}", false),
        ("[id:{query:id}]x{body}", false),
        ("[id:{query:id}{query:b};]x{body}", false),
        ("[id:{body};]x", false),
        ("{header:}.{body}", false),
        ("{header:a b}.{body}", false),
        ("{json:a..b}", false),
        ("{cookie:a}.{body}", false),
        ("{secret}{body}", true),
        ("{secret}", false),
        ("{url}{method}", false),
    ];
    for (text, accepted) in rows {
        assert_eq!(Template::parse(text, SECONDS).is_ok(), accepted, "{text:?}");
    }
    let fixed = Given {
        unit: Some(Unit::Rfc3339),
        id_bytes: Some(36),
    };
    assert!(Template::parse("{id}{timestamp}{body}", fixed).is_ok());
    assert!(Template::parse("{body}{id}", fixed).is_ok());
    let naive = Given {
        unit: Some(Unit::DateTime),
        id_bytes: None,
    };
    assert!(Template::parse("{timestamp}{body}", naive).is_err());
    assert!(Template::parse("{timestamp}.{body}", naive).is_err());
    assert!(Template::parse("{timestamp}:{body}", naive).is_ok());
    assert!(Template::parse("{body}{timestamp}", naive).is_ok());
}

#[test]
fn an_id_before_a_date_ends_at_the_dates_first_colon() {
    // A captured `msg-1` + date + body would be accepted as `msg-12` with a date and a body of the sender's choice.
    let dated = Given {
        unit: Some(Unit::Rfc3339),
        id_bytes: None,
    };
    let template = Template::parse("{id}{timestamp}{body}", dated).unwrap();
    assert_eq!(template.id(), Some(Rule::Without(b':')));
    assert!(Template::parse("{timestamp}{id}{body}", dated).is_err());
}

#[test]
fn only_certain_members_identify_an_event() {
    // Two events whose values share one text would be one, or one event two.
    let certain = |text: &str, name: &str| {
        let path = json::JsonPath::parse("json", name).unwrap();
        Template::parse(text, SECONDS).unwrap().is_certain(&Source::Json(path))
    };
    assert!(certain("{json:a}.{json:b}", "a") && certain("{json:a}.{json:b}", "b"));
    assert!(!certain("{json:a}{json:b}", "a") && !certain("{json:a}{json:b}", "b"));
    assert!(certain("{timestamp}{json:b}", "b"));
    assert!(certain("{json:a}{url}", "a") && certain("{url}{json:a}", "a"));
    assert!(!certain("{json:a}.{json:b}", "c"));
}

#[test]
fn what_the_route_gives_becomes_text() {
    // A URL that is looked up per request would be paid for by every request.
    let template = Template::parse("{setting:a}.{method}{url}{body}{setting:a}", SECONDS).unwrap();
    let mut settings = Settings::default();
    settings.insert("a", Secret::new("key").unwrap()).unwrap();
    let url = PublicUrl::parse("https://h/x?y").unwrap();
    let fixed = template.fixed(Some(&url), &settings).unwrap();
    let head: Vec<_> = fixed.head().iter().map(|piece| piece.part.clone()).collect();
    let text = |text: &str| Part::Literal(text.as_bytes().to_vec());
    assert_eq!(head, [text("key"), text("."), Part::Method, text("https://h/x?y")]);
    assert_eq!(template.fixed(None, &settings).err(), Some(Config::Url));
    let missing = template.fixed(Some(&url), Settings::NONE).err();
    assert_eq!(missing, Some(Config::Setting("a".to_owned())));
    assert!(!format!("{fixed:?}").contains("key"), "a setting may be a secret");
}

#[test]
fn braces_and_text_are_written_as_they_are() {
    // Signed bytes that differ from the provider's in one brace refuse everything.
    let template = Template::parse("{{a}}[[:{id}/{timestamp}:{body}}}z]]", SECONDS).unwrap();
    let values = Values {
        timestamp: b"12",
        id: b"x",
    };
    let mut all = Vec::new();
    template.write_head(values, |bytes| all.extend_from_slice(bytes));
    all.push(b'B');
    template.write_tail(values, |bytes| all.extend_from_slice(bytes));
    assert_eq!(all, b"{a}[:x/12:B}z]");
}

/// What stands for a value of the configuration.
const CONFIG: &str = "1.a";

/// Whether `value` can be what `piece` was filled with; a literal only itself.
fn fits(piece: &Piece, unit: Unit, value: &[u8]) -> bool {
    match &piece.part {
        Part::Literal(text) => text == value,
        Part::Config(_) | Part::Secret => CONFIG.as_bytes() == value,
        Part::Timestamp => piece.rule.admits(value) && unit.parse(value).is_some(),
        Part::Id => read_id(piece.rule, value).is_some(),
        Part::BodySha256 => value.len() == 64 && value.iter().all(u8::is_ascii_hexdigit),
        Part::Method => [&b"GET"[..], b"POST", b"PUT", b"PATCH"].contains(&value),
        Part::Optional { before, after, .. } => {
            let inside = value
                .strip_prefix(before.as_slice())
                .and_then(|rest| rest.strip_suffix(after.as_slice()));
            value.is_empty() || inside.is_some_and(|inside| !inside.is_empty() && piece.rule.admits(inside))
        }
        Part::Body | Part::SortedForm => true,
        Part::Value(_) => piece.rule.admits(value),
    }
}

/// A part of the message as it was filled, or the body.
fn parts_of(template: &Template) -> Vec<Piece> {
    let body = Piece {
        part: Part::Body,
        rule: Rule::Free,
        is_certain: true,
    };
    let body = template.has_body().then_some(body);
    let mut parts: Vec<_> = template.head().to_vec();
    parts.extend(body);
    parts.extend_from_slice(template.tail());
    parts
}

/// Every way to cut `text`, reduced to what has to be certain.
fn readings(parts: &[Piece], unit: Unit, text: &[u8], so_far: Vec<Vec<u8>>, all: &mut BTreeSet<Vec<Vec<u8>>>) {
    let Some((piece, rest)) = parts.split_first() else {
        if text.is_empty() {
            all.insert(so_far);
        }
        return;
    };
    let cuts = match (&piece.part, rest.is_empty()) {
        (Part::Literal(literal), _) => literal.len()..=literal.len(),
        (_, true) => text.len()..=text.len(),
        _ => 0..=text.len(),
    };
    for at in cuts {
        let Some((value, behind)) = text.split_at_checked(at) else {
            continue;
        };
        if fits(piece, unit, value) {
            let mut kept = so_far.clone();
            if piece.is_certain {
                kept.push(value.to_vec());
            }
            readings(rest, unit, behind, kept, all);
        }
    }
}

/// Makes `value` obey.
fn obedient(rule: Rule, value: &str) -> String {
    match rule {
        Rule::Free => value.to_owned(),
        Rule::Without(byte) => value.replace(char::from(byte), "b"),
        Rule::Width(bytes) => value.chars().cycle().take(bytes).collect(),
    }
}

fn any_template() -> impl Strategy<Value = (Template, Unit)> {
    let literal = prop::sample::select(vec!["", "", ".", ":", "1", "a", ".1", "1.", "aa", "..", "{{", "\n"]);
    let places = vec![
        "{timestamp}",
        "{id}",
        "{body}",
        "{body_sha256}",
        "{header:x}",
        "{json:y}",
        "{method}",
        "{url}",
        "{setting:z}",
        "[a:{query:q};]",
        "[:{form:f}.]",
    ];
    let places = prop::sample::subsequence(places, 1..=4).prop_shuffle();
    let unit = prop::sample::select(vec![Unit::Seconds, Unit::Rfc3339, Unit::DateTime, Unit::HttpDate]);
    let id_bytes = prop::sample::select(vec![None, None, Some(3)]);
    (places, vec(literal, 5), unit, id_bytes).prop_filter_map("refused", |(places, literals, unit, id_bytes)| {
        let mut text = String::from(literals[4]);
        for (place, literal) in places.iter().zip(literals) {
            text.push_str(place);
            text.push_str(literal);
        }
        let given = Given {
            unit: Some(unit),
            id_bytes,
        };
        Template::parse(&text, given).ok().map(|template| (template, unit))
    })
}

fn any_time(unit: Unit) -> BoxedStrategy<String> {
    match unit {
        Unit::Rfc3339 => "20[01]{2}-11-1[01]T11:01:1[01](|\\.1|\\.[01]{3})(Z|\\+01:00|-11:10)".boxed(),
        Unit::DateTime => "20[01]{2}-11-1[01]T11:01:1[01](|\\.1|\\.[01]{3})".boxed(),
        Unit::HttpDate => "Fri, 11 Nov 2011 11:01:1[01] GMT".boxed(),
        _ => "1[01]{9}".boxed(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    // One captured signature would fit a second id, time or body.
    #[test]
    fn signed_bytes_have_one_reading(
        ((template, unit), time) in any_template().prop_flat_map(|(template, unit)| {
            (Just((template, unit)), any_time(unit))
        }),
        values in vec("[.:;1a{]{1,4}", 6),
        is_there in any::<bool>(),
        body in "[.:;01aPZ+{]{0,5}",
        after in "(|[.:]1[01]{9}[.:1]?|[.]?[01]|:1[01]Z?)",
    ) {
        let parts = parts_of(&template);
        let mut text = String::new();
        let mut expected = Vec::new();
        for (piece, value) in parts.iter().zip(values.iter().cycle()) {
            let filled = match &piece.part {
                Part::Literal(literal) => String::from_utf8(literal.clone()).unwrap(),
                Part::Config(_) | Part::Secret => CONFIG.to_owned(),
                Part::Timestamp => time.clone(),
                Part::Body => format!("{body}{after}"),
                Part::BodySha256 => "1a".repeat(32),
                Part::Method => "POST".to_owned(),
                Part::Optional { .. } if !is_there => String::new(),
                Part::Optional { before, after, .. } => {
                    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                    format!("{}{}{}", text(before), obedient(piece.rule, value), text(after))
                }
                Part::Id | Part::Value(_) | Part::SortedForm => obedient(piece.rule, value),
            };
            prop_assume!(fits(piece, unit, filled.as_bytes()));
            text.push_str(&filled);
            if piece.is_certain {
                expected.push(filled.into_bytes());
            }
        }
        let mut all = BTreeSet::new();
        readings(&parts, unit, text.as_bytes(), Vec::new(), &mut all);
        prop_assert_eq!(all, BTreeSet::from([expected]), "{:?} {:?}", template, text);
    }
}
