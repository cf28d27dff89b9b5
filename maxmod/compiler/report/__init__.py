"""Reports on compiled graphs: the facts, and two forms of them, text and an HTML page.

`facts` describes a compiled graph: its steps with bytes and operations, its
kernels with the reasons for them, where intermediates live, and times if there are any. `text` and
`page` only arrange that, so that both say the same. `Explanation` is the door to all of it.
"""

from maxmod.compiler.report.explanation import Explanation as Explanation
from maxmod.compiler.report.measurement import Measurement as Measurement
