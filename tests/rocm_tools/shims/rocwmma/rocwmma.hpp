// Included by TileLang's templates, of which the kernels here use nothing of it.
#pragma once
