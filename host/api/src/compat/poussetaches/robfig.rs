//! Expressions as robfig/cron v1 reads them, in the words of [`carillon_core::timetable::Expression`].
//!
//! There are six fields, the first of which are seconds, and the last may be left out: five fields are not those of crontab. `?` is `*` in
//! every field, weekdays are numbered 0 to 6, names have three letters, and `@every` takes a duration as Go writes it. Numbers, ranges and
//! dates that never come are checked by the timetable.

/// The fields, the last of which is `*` by default.
const FIELDS: usize = 6;
const DAY_OF_WEEK: usize = 5;

/// The letters of a name of a month or a weekday.
const NAME_LETTERS: usize = 3;

/// The names, in their order.
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

/// The longest period of `@every`, so that adding it to a time is safe, in seconds: a hundred years.
const MAX_EVERY: f64 = 100.0 * 366.0 * 86_400.0;

/// The units of a duration, in seconds.
const UNITS: [(&str, f64); 8] =
    [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("μs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3_600.0)];

/// Says the same in the timetable's words.
///
/// # Errors
/// In one sentence, if robfig/cron v1 would not understand it.
pub(super) fn translated(spec: &str) -> Result<String, String> {
    let spec = spec.trim();
    if let Some(duration) = spec.strip_prefix("@every ") {
        return every(duration.trim()).map(|seconds| format!("@every {seconds}s"));
    }
    if spec.starts_with('@') {
        let known = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];
        let found = known.contains(&spec).then(|| spec.to_owned());
        return found.ok_or_else(|| {
            format!("`{}` is not one of {} and `@every <duration>`", spec.escape_debug(), known.join(", "))
        });
    }
    let mut fields: Vec<&str> = spec.split_whitespace().collect();
    if fields.len() == FIELDS - 1 {
        fields.push("*");
    }
    if fields.len() != FIELDS {
        return Err(format!(
            "a schedule has 5 or 6 fields (second, minute, hour, day of month, month, and perhaps day of week), not {}",
            fields.len()
        ));
    }
    let translated: Result<Vec<_>, _> =
        fields.into_iter().enumerate().map(|(index, text)| field(index, text)).collect();
    Ok(translated?.join(" "))
}

fn field(index: usize, text: &str) -> Result<String, String> {
    let items: Result<Vec<_>, _> = text.split(',').map(|item| self::item(index, item)).collect();
    Ok(items?.join(","))
}

fn item(index: usize, item: &str) -> Result<String, String> {
    let not_understood = |why: &str| format!("`{}` of the schedule is not understood: {why}", item.escape_debug());
    let (range, step) = item.split_once('/').map_or((item, None), |(range, step)| (range, Some(step)));
    let ends: Vec<&str> = range.split('-').collect();
    for end in &ends {
        let (digits, letters) =
            (end.bytes().any(|byte| byte.is_ascii_digit()), end.bytes().any(|byte| byte.is_ascii_alphabetic()));
        if digits && letters || end.contains('#') {
            return Err(not_understood("it is neither a number nor a name"));
        }
        if end.bytes().all(|byte| byte.is_ascii_alphabetic()) && end.len() != NAME_LETTERS {
            return Err(not_understood("names have three letters"));
        }
    }
    if index == DAY_OF_WEEK {
        if ends.contains(&"7") {
            return Err(not_understood("weekdays are numbered 0 to 6"));
        }
        if ends.len() == 2
            && ends[1].eq_ignore_ascii_case("sun")
            && !["sun", "0"].contains(&ends[0].to_ascii_lowercase().as_str())
        {
            return Err(not_understood("it goes backwards"));
        }
    }
    if let [first, last] = ends[..]
        && number(first) > number(last)
    {
        return Err(not_understood("it goes backwards"));
    }
    let range = if range == "?" { "*" } else { range };
    Ok(step.map_or_else(|| range.to_owned(), |step| format!("{range}/{step}")))
}

/// The number of one end of a range; of what is none, nothing.
fn number(end: &str) -> Option<usize> {
    let named = |names: &[&str]| names.iter().position(|name| name.eq_ignore_ascii_case(end));
    end.parse().ok().or_else(|| named(&WEEKDAYS)).or_else(|| named(&MONTHS))
}

/// A duration as Go writes it, such as `1h30m` or `1.5s`, in whole seconds and at least one.
fn every(text: &str) -> Result<u64, String> {
    let bad = || format!("`{}` is not a duration such as `90s`, `1h30m` or `1.5h`", text.escape_debug());
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let mut left = unsigned;
    let mut seconds = 0.0;
    while !left.is_empty() {
        let digits = left.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let (number, rest) = left.split_at(digits);
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').map_or(rest, |end| &rest[..end]);
        let (_, size) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(bad)?;
        let number: f64 = number.parse().map_err(|_| bad())?;
        seconds += number * size;
        left = &rest[unit.len()..];
    }
    if unsigned.is_empty() && text != "0" {
        return Err(bad());
    }
    if seconds > MAX_EVERY {
        return Err(format!("`{}` is too long", text.escape_debug()));
    }
    // A negative period is one second, too.
    let seconds = if text.starts_with('-') { 0.0 } else { seconds };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is neither negative nor large")]
    let whole = (seconds + 1e-9) as u64;
    Ok(whole.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_core::timetable::Expression;

    fn read(spec: &str) -> Result<String, String> {
        let text = translated(spec)?;
        text.parse::<Expression>().map_err(|error| error.to_string())?;
        Ok(text)
    }

    #[test]
    fn five_fields_begin_with_seconds() {
        assert_eq!(read("30 4 * * *").unwrap(), "30 4 * * * *");
        assert_eq!(read("0 30 4 * * MON-FRI").unwrap(), "0 30 4 * * MON-FRI");
        assert_eq!(read("*/15 * * * *").unwrap(), "*/15 * * * * *");
        assert_eq!(read("? ? ? ? ? ?").unwrap(), "* * * * * *");
        assert_eq!(read("0 0 0 ? JAN-mar/2 sun,Tue").unwrap(), "0 0 0 * JAN-mar/2 sun,Tue");
        assert_eq!(read("0 5/15 * * * 0-6").unwrap(), "0 5/15 * * * 0-6");
    }

    #[test]
    fn what_it_does_not_understand() {
        for bad in [
            "* * * *",
            "* * * * * * *",
            "",
            "60 * * * * *",
            "* 60 * * * *",
            "* * 24 * * *",
            "* * * 0 * *",
            "0 0 0 L * *",
            "0 0 0 LW * *",
            "0 0 0 15W * *",
            "0 0 0 * * 5L",
            "0 0 0 * * 5#2",
            "0 0 22-2 * * *",
            "0 0 0 * nov-feb *",
            "0 0 0 * * fri-mon",
            "0 0 0 * * sat-sun",
            "0 0 0 28-3 * *",
            "* * * 32 * *",
            "* * * * 13 *",
            "* * * * * 7",
            "* * * * * 5-7",
            "* * * * * fri-sun",
            "* * * * * monday",
            "* * * * january *",
            "* * * * * mo",
            "5-1 * * * * *",
            "*/0 * * * * *",
            "a * * * * *",
            "1,,2 * * * * *",
            "- * * * * *",
            "@reboot",
            "@every",
            "@every x",
            "@every 5",
            "@hour",
            "@Hourly",
            "0 0 0 30 2 *",
        ] {
            assert!(read(bad).is_err(), "{bad}: {:?}", read(bad));
        }
    }

    #[test]
    fn periods_are_gos() {
        let seconds = |text: &str| every(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!((seconds("90s"), seconds("1h30m"), seconds("1.5h"), seconds("1m1.9s")), (90, 5_400, 5_400, 61));
        assert_eq!((seconds("300ms"), seconds("-5m"), seconds("1999ms"), seconds("2000000us")), (1, 1, 1, 2));
        assert_eq!((seconds(".5h"), seconds("1.h"), seconds("+3s"), seconds("3000000000ns")), (1_800, 3_600, 3, 3));
        for bad in ["", "s", "5", "1d", "1h 30m", "1e3s", "..s", "9999999999h", "1ss", "--1s"] {
            assert!(every(bad).is_err(), "{bad}");
        }
        assert_eq!(read("@every 90s").unwrap(), "@every 90s");
    }
}
