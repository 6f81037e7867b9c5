Ids of neurons, and whole new data: the parts before they are tied together -c echo Ids of neurons, and whole new data: the parts before they are tied together > /work/main/.git/COMMIT_EDITMSG
