/* A series as text for trusted storage, and back: times as JSON, every double exact. */
#ifndef STATE_H
#define STATE_H

#include "series.h"

ec_status state_write(const Series *series, ec_text *text);

/* Fails with 500 when the text did not come from state_write. */
ec_status state_read(ec_text text, Series *series);

#endif
