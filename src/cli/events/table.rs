//! Deliveries and events as text for people: columns that line up, nothing that a terminal would obey.
//!
//! Names of events come from outside. Whatever is not printable is shown escaped, so that an event type cannot move the
//! cursor of the person who looks at it.

use serde_json::Value;

/// Deliveries, one a line.
pub(super) fn deliveries(deliveries: &[Value]) -> String {
    let head = [
        "id",
        "route",
        "destination",
        "state",
        "attempts",
        "accepted",
        "next",
        "type",
        "event id",
    ];
    let names = [
        "id",
        "route",
        "destination",
        "state",
        "attempts",
        "accepted_at",
        "next_at",
        "event_type",
        "event_id",
    ];
    let row = |delivery: &Value| names.iter().map(|name| cell(&delivery[*name])).collect();
    let rows: Vec<Vec<String>> = deliveries.iter().map(row).collect();
    match rows.is_empty() {
        true => "no deliveries".to_owned(),
        false => lines(&head, &rows),
    }
}

/// How much waits where: a line for each lane.
pub(super) fn queue(queue: &Value) -> String {
    const STATES: [&str; 7] = [
        "pending",
        "waiting",
        "blocked",
        "leased",
        "delivered",
        "dead",
        "cancelled",
    ];
    let head = [&["route", "destination"][..], &STATES, &["oldest open, s"]].concat();
    let mut rows: Vec<Vec<String>> = Vec::new();
    let all = items(&queue["lanes"]);
    for of_lane in all.chunk_by(|a, b| a["route"] == b["route"] && a["destination"] == b["destination"]) {
        let Some(lane) = of_lane.first() else { continue };
        let of = |state: &str| of_lane.iter().find(|count| count["state"] == state);
        let mut row = vec![cell(&lane["route"]), cell(&lane["destination"])];
        row.extend(STATES.map(|state| of(state).map_or_else(|| "-".to_owned(), |count| cell(&count["deliveries"]))));
        let open = STATES
            .iter()
            .take(4)
            .filter_map(|state| of(state)?["oldest_seconds"].as_f64());
        let oldest = open.reduce(f64::max);
        row.push(oldest.map_or_else(|| "-".to_owned(), |oldest| format!("{oldest:.0}")));
        rows.push(row);
    }
    format!("queue: {}\n{}", cell(&queue["health"]), lines(&head, &rows))
}

/// The routes that queue.
pub(super) fn routes(routes: &Value) -> String {
    let row = |route: &Value| {
        let state = if route["paused"] == true { "paused" } else { "delivered" };
        vec![cell(&route["route"]), state.to_owned()]
    };
    let rows: Vec<Vec<String>> = items(&routes["routes"]).iter().map(row).collect();
    lines(&["route", "deliveries are"], &rows)
}

/// One event: what it is, where it goes, what was tried.
pub(super) fn event(event: &Value) -> String {
    let mut text = String::new();
    for name in [
        "id",
        "route",
        "provider",
        "verified",
        "event_id",
        "event_type",
        "method",
        "target",
        "client",
        "body_bytes",
    ] {
        text.push_str(&format!("{name:<12} {}\n", cell(&event[name])));
    }
    text.push_str("\nheaders\n");
    for header in items(&event["headers"]) {
        text.push_str(&format!("  {}: {}\n", cell(&header[0]), cell(&header[1])));
    }
    for delivery in items(&event["deliveries"]) {
        let attempts = match delivery["attempts"].as_u64() {
            Some(1) => "1 attempt".to_owned(),
            _ => format!("{} attempts", cell(&delivery["attempts"])),
        };
        text.push_str(&format!(
            "\nto {}: {} after {attempts}\n",
            cell(&delivery["destination"]),
            cell(&delivery["state"]),
        ));
        let head = ["at", "took, ms", "status", "error"];
        let names = ["at", "took_ms", "status", "error"];
        let row = |attempt: &Value| names.iter().map(|name| cell(&attempt[*name])).collect();
        let rows: Vec<Vec<String>> = items(&delivery["history"]).iter().map(row).collect();
        if !rows.is_empty() {
            text.push_str(&lines(&head, &rows));
            text.push('\n');
        }
    }
    if let Some(body) = event["body_base64"].as_str() {
        text.push_str(&format!("\nbody in base64\n{body}\n"));
    }
    text.trim_end().to_owned()
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text
            .escape_debug()
            .to_string()
            .replace("\\\"", "\"")
            .replace("\\'", "'"),
        other => other.to_string(),
    }
}

fn lines(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows
            .iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count());
        let titled = head.get(column).map_or(0, |title| title.len());
        cells.chain([titled]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}", width = *width))
            .collect();
        padded.join("  ").trim_end().to_owned()
    };
    let mut text = vec![line(&mut head.iter().copied())];
    text.extend(rows.iter().map(|row| line(&mut row.iter().map(String::as_str))));
    text.join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_line_up_and_obey_nobody() {
        // An event type with an escape sequence would rewrite what the operator sees.
        let rows = [
            json!({ "id": 7, "route": "billing", "destination": "app", "state": "dead", "attempts": 9,
                    "accepted_at": "t", "next_at": null, "event_type": "\u{1b}[2J", "event_id": "evt \"1\"" }),
        ];
        let expected = "id  route    destination  state  attempts  accepted  next  type       event id\n\
                        7   billing  app          dead   9         t         -     \\u{1b}[2J  evt \"1\"";
        assert_eq!(deliveries(&rows), expected);
        assert_eq!(deliveries(&[]), "no deliveries");
    }

    #[test]
    fn a_lane_is_one_line() {
        // Fifty routes would be 350 lines, most of them zeros, and the one that matters is not seen.
        let count = |route: &str, state: &str, deliveries: u64, oldest: Option<f64>| {
            json!({ "route": route, "destination": "app", "state": state, "deliveries": deliveries,
                    "oldest_seconds": oldest })
        };
        let lanes = [
            count("a", "pending", 2, Some(3.2)),
            count("a", "waiting", 5, Some(60.9)),
            count("a", "dead", 1, Some(7000.0)),
            count("b", "pending", 0, None),
        ];
        let expected = "queue: open\n\
             route  destination  pending  waiting  blocked  leased  delivered  dead  cancelled  oldest open, s\n\
             a      app          2        5        -        -       -          1     -          61\n\
             b      app          0        -        -        -       -          -     -          -";
        assert_eq!(queue(&json!({ "health": "open", "lanes": lanes })), expected);
    }
}
