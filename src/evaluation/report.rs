pub struct Report;
pub struct Run;
