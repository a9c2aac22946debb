//! The state that the supervisor leaves to the next image.

use serde_reflection::{Result, Tracer};

use crate::supervisor::Phase;
use crate::supervisor::action::ExitReason;
use crate::supervisor::auxiliary::Life;
use crate::supervisor::command::Goal;
use crate::supervisor::event::{ExitStatus, Kept};
use crate::supervisor::reload::{Step, Trial};
use crate::supervisor::slot_state::Loss;
use crate::supervisor::stage::{Due, Kill, Stage, Task, Urgency};
use crate::supervisor::upgrade::Upgrade;
use crate::supervisor::watch::Drainage;

/// Finds out every variant of every enum in it.
pub(crate) fn trace(tracer: &mut Tracer) -> Result<()> {
    tracer.trace_simple_type::<Drainage>()?;
    tracer.trace_simple_type::<Due>()?;
    tracer.trace_simple_type::<ExitReason>()?;
    tracer.trace_simple_type::<ExitStatus>()?;
    tracer.trace_simple_type::<Goal>()?;
    tracer.trace_simple_type::<Kept>()?;
    tracer.trace_simple_type::<Kill>()?;
    tracer.trace_simple_type::<Life>()?;
    tracer.trace_simple_type::<Loss>()?;
    tracer.trace_simple_type::<Phase>()?;
    tracer.trace_simple_type::<Stage>()?;
    tracer.trace_simple_type::<Step>()?;
    tracer.trace_simple_type::<Task>()?;
    tracer.trace_simple_type::<Trial>()?;
    tracer.trace_simple_type::<Upgrade>()?;
    tracer.trace_simple_type::<Urgency>()?;
    Ok(())
}
