"""Many rows of data through a model: callables over batches of columns, and the command's runs.

The callables are plain classes for whatever distributes data, such as `map_batches` of Ray Data or
`mapInPandas` of Spark; nothing of these is imported. Each process loads the model from its folder
when it first needs it.

>>> from maxmod.batch import Generate
>>> from maxmod.models import adder_folder
>>> answer = Generate(adder_folder(), column="sum", output="answer")
>>> answer({"sum": ["1+1=", "123+456="]})["answer"]
['2', '579']
"""

from maxmod.batch.predictors import Classify, Embed, Generate, Predictor

__all__ = ["Classify", "Embed", "Generate", "Predictor"]
