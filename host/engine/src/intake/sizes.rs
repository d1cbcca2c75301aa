//! Sizes of a job's parts, checked before anything is made of them.

use super::error::IntakeError;
use super::input::JobInput;
use carillon_core::limits::{RequestLimits, json_len};

impl JobInput {
    /// Checks the size of the document without its payload and without the jobs that follow it, which count by themselves.
    ///
    /// # Errors
    /// Returns [`IntakeError`] with a pointer to the part that is too large; if only the sum is, to the largest part.
    pub(super) fn check_sizes(&self, limits: &RequestLimits) -> Result<(), IntakeError> {
        self.headers.check_sizes(limits)?;
        let policy = self.policy.as_ref().map_or(0, json_len);
        limits.overrides.check("policy", "/policy", policy)?;
        let periods = (&self.limits.timeout, &self.limits.ttl, &self.limits.max_delay);
        let parts = [
            ("/url", json_len(&self.url)),
            ("/method", json_len(&self.method)),
            ("/headers", self.headers.json_len()),
            ("/run_at", json_len(&self.run_at)),
            ("/name", json_len(&self.name)),
            ("/metadata", json_len(&self.metadata)),
            ("/policy", policy),
            ("/limits", json_len(&periods)),
            ("/order_key", json_len(&self.order_key)),
            ("/dedupe_key", json_len(&self.dedupe_key)),
            ("/dedupe_window", json_len(&self.dedupe_window)),
            ("/debounce_key", json_len(&self.debounce_key)),
            ("/group", json_len(&self.group)),
        ];
        let sum = parts.iter().map(|(_, len)| *len).fold(0, usize::saturating_add);
        let largest = parts.iter().max_by_key(|(_, len)| *len).map_or("", |(pointer, _)| *pointer);
        Ok(limits.job.check("job", largest, sum)?)
    }
}

#[cfg(test)]
mod tests {
    use carillon_core::limits::ByteLimit;
    use serde_json::{Value, json};

    use super::*;

    const fn limit(bytes: usize, setting: &'static str) -> ByteLimit {
        ByteLimit { bytes, setting }
    }

    const LIMITS: RequestLimits = RequestLimits {
        job: limit(2_000, "limits.job"),
        header: limit(100, "limits.header"),
        headers: limit(300, "limits.headers"),
        overrides: limit(200, "limits.override"),
        document: limit(0, "limits.document"),
        name: limit(255, "limits.name"),
        note: limit(0, "limits.note"),
        secret: limit(0, "limits.secret"),
    };

    fn checked(doc: Value) -> Result<(), (String, String)> {
        let doc: JobInput = serde_json::from_value(doc).unwrap();
        doc.check_sizes(&LIMITS).map_err(|error| (error.pointer.clone().unwrap_or_default(), error.to_string()))
    }

    #[test]
    fn payload_and_follow_ups_do_not_count() {
        let long = "x".repeat(9_000);
        assert_eq!(checked(json!({"url": "http://a/", "payload_text": long, "on_success": {"name": long}})), Ok(()));
        assert_eq!(checked(json!({"payload": [long], "on_failure": {"name": long}})), Ok(()));
    }

    #[test]
    fn each_part_has_its_bound_and_so_has_their_sum() {
        let long = |len: usize| "x".repeat(len);
        for (doc, pointer, setting) in [
            (json!({"headers": {"X-A": long(101)}}), "/headers/X-A", "limits.header"),
            (
                json!({"headers": [["X-A", long(99)], ["X-B", long(99)], ["X-C", long(99)]]}),
                "/headers",
                "limits.headers",
            ),
            (json!({"policy": {"judge": {"expect": long(200)}}}), "/policy", "limits.override"),
            (json!({"run_at": long(2_000)}), "/run_at", "limits.job"),
            (json!({"limits": {"ttl": long(2_000)}}), "/limits", "limits.job"),
            (json!({"group": long(2_000)}), "/group", "limits.job"),
            (json!({"metadata": {"a": long(1_000), "b": long(1_000)}}), "/metadata", "limits.job"),
        ] {
            let (at, text) = checked(doc).unwrap_err();
            assert!(at == pointer && text.contains(setting), "{at}: {text}");
        }
    }
}
