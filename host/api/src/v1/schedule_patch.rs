//! A change of a part of a schedule: what is not named stays, as its text.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use serde_json::value::RawValue;

use super::super::ApiState;
use super::super::auth::Access;
use super::super::error::Problem;
use super::super::input::{Body, Path, parse};
use super::schedule_view::{ScheduleView, find_schedule, show_schedule};
use super::schedules::{self, ScheduleInput};

/// The members of a schedule as it is shown that are also those of one that is put. Not `paused`: it stays by itself where it is not named, also
/// if the schedule is paused in the same moment.
const MEMBERS: [&str; 11] =
    ["group", "cron", "time_zone", "start", "end", "max_runs", "jitter", "overlap", "catch_up", "catch_up_all", "job"];

/// Changes some settings of a schedule. Members that the document does not name stay; `job` is replaced as a whole.
#[utoipa::path(patch, path = "/v1/schedules/{schedule}", operation_id = "schedules_patch", tag = "schedules", request_body = ScheduleInput,
    responses((status = 200, body = ScheduleView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn patch(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
    Body(part): Body<BTreeMap<String, Box<RawValue>>>,
) -> Result<Json<ScheduleView>, Problem> {
    let Json(shown) = show_schedule(&api, &access, &name).await?;
    let shown = serde_json::to_string(&shown).map_err(|_| Problem::internal())?;
    let mut doc: BTreeMap<String, Box<RawValue>> = parse(shown.as_bytes())?;
    doc.retain(|member, _| MEMBERS.contains(&member.as_str()));
    // The job as it is shown lacks what the client may not see, such as the password of its URL.
    let stored = find_schedule(&api, &access, &name)?.spec.job.clone();
    doc.insert("job".to_owned(), parse(stored.as_bytes())?);
    doc.extend(part);
    let doc = serde_json::to_vec(&doc).map_err(|_| Problem::internal())?;
    let (_, shown) = schedules::put(State(api), Extension(access), Path(name), Body(parse(&doc)?)).await?;
    Ok(shown)
}

#[cfg(test)]
mod tests {
    use utoipa::PartialSchema as _;

    use super::*;

    #[test]
    fn every_member_of_a_schedule_stays_unless_it_is_named() {
        let schema = serde_json::to_value(ScheduleInput::schema()).unwrap();
        let mut known: Vec<_> = schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        known.retain(|member| *member != "paused");
        let mut members = MEMBERS;
        known.sort_unstable();
        members.sort_unstable();
        assert_eq!(known, members);
    }
}
